package kmip

import (
	"context"
	"crypto"
	"errors"
	"fmt"
	"slices"
	"strings"

	"sluice/keymgr"
)

// discover asks which versions of the protocol the server speaks.
func discover(speaks []version) operation {
	return operation{opDiscoverVersions, func(e *encoder) {
		for _, v := range speaks {
			e.version(v)
		}
	}}
}

// learn agrees with the server on a version, the best that both speak, and asks
// what it can.
func (srv *server) learn(ctx context.Context, c *conn) error {
	var err error
	// A server that speaks none but a new version refuses the question in an old
	// one.
	for _, v := range []version{{1, 2}, {2, 1}, {2, 0}, {1, 4}, {1, 3}} {
		srv.version = v
		var out []item
		if out, err = srv.ask(ctx, c, discover(srv.speaks)); err == nil {
			return srv.agree(ctx, c, out[0])
		}
		if _, ok := refused(err); !ok || denied(err) {
			return err
		}
	}
	return problem{fmt.Errorf("it speaks none of the versions 1.2 to 2.1 of KMIP: %w", err), "have one of them switched on there"}
}

// ask sends a message on a connection of its own.
func (srv *server) ask(ctx context.Context, c *conn, op operation) ([]item, error) {
	ops := []operation{op}
	response, _, err := c.exchange(ctx, encodeRequest(srv.version, srv.login, ops))
	if err != nil {
		return nil, err
	}
	return decodeResponse(response, ops)
}

func (srv *server) agree(ctx context.Context, c *conn, answer item) error {
	var theirs []version
	for it := range answer.items() {
		major, ok := it.find(tagProtocolVersionMajor).number()
		minor, also := it.find(tagProtocolVersionMinor).number()
		if it.tag == tagProtocolVersion && ok && also && len(theirs) < 32 {
			theirs = append(theirs, version{major, minor})
		}
	}
	at := slices.IndexFunc(srv.speaks, func(v version) bool { return slices.Contains(theirs, v) })
	if at < 0 {
		return problem{fmt.Errorf("it speaks none of the versions 1.2 to 2.1 of KMIP: %v", theirs), "have one of them switched on there"}
	}
	srv.version = srv.speaks[at]
	out, err := srv.ask(ctx, c, operation{opQuery, func(e *encoder) {
		e.enumeration(tagQueryFunction, queryOperations)
		e.enumeration(tagQueryFunction, queryServer)
	}})
	if err != nil {
		return err
	}
	srv.can = map[uint32]bool{}
	for it := range out[0].items() {
		if op, ok := it.number(); ok && it.tag == tagOperation && op <= 0xffff {
			srv.can[op] = true
		}
	}
	srv.vendor = strings.TrimSpace(out[0].find(tagVendorIdentification).text(80))
	srv.name = strings.TrimSpace(out[0].find(tagServerInformation, tagServerName).text(80))
	return srv.suffices()
}

// suffices refuses a server that cannot do what keys need.
func (srv *server) suffices() error {
	if len(srv.can) == 0 {
		return nil // it does not say
	}
	var lacks []string
	for _, op := range []uint32{opCreateKeyPair, opLocate, opGet, opSign, opDestroy} {
		if !srv.can[op] {
			lacks = append(lacks, operationName(op))
		}
	}
	if len(lacks) == 0 {
		return nil
	}
	return problem{
		fmt.Errorf("the server does not do %s, for this client", strings.Join(lacks, ", ")),
		"have the operations allowed there; a server that keeps keys and does not sign with them is of no use here",
	}
}

// attribute is an attribute of a new key, or one that is looked for.
type attribute struct {
	name  string // in KMIP 1
	tag   uint32 // in KMIP 2
	write func(e *encoder, tag uint32)
}

// attributes appends a structure of attributes, as the version has them.
func (e *encoder) attributes(v version, old, tag uint32, list []attribute) {
	if v.structures() {
		e.structure(tag, func() {
			for _, a := range list {
				a.write(e, a.tag)
			}
		})
		return
	}
	pairs := func() {
		for _, a := range list {
			e.structure(tagAttribute, func() {
				e.text(tagAttributeName, a.name)
				a.write(e, tagAttributeValue)
			})
		}
	}
	if old == 0 {
		pairs()
		return
	}
	e.structure(old, pairs)
}

func enumAttribute(name string, tag, value uint32) attribute {
	return attribute{name, tag, func(e *encoder, tag uint32) { e.enumeration(tag, value) }}
}

func intAttribute(name string, tag, value uint32) attribute {
	return attribute{name, tag, func(e *encoder, tag uint32) { e.integer(tag, value) }}
}

func boolAttribute(name string, tag uint32, yes bool) attribute {
	return attribute{name, tag, func(e *encoder, tag uint32) { e.boolean(tag, yes) }}
}

func nameAttribute(name string) attribute {
	return attribute{"Name", tagName, func(e *encoder, tag uint32) {
		e.structure(tag, func() {
			e.text(tagNameValue, name)
			e.enumeration(tagNameType, nameText)
		})
	}}
}

// identifier is a Unique Identifier; it need not be a text since KMIP 2.0.
type identifier struct {
	kind  byte
	value string
}

func identifierOf(it item) (identifier, bool) {
	switch it.kind {
	case typeText, typeEnumeration, typeInteger:
		return identifier{it.kind, string(it.value)}, it.tag != 0 && len(it.value) > 0 && len(it.value) < 4096
	}
	return identifier{}, false
}

func (e *encoder) identifier(id identifier) { e.raw(tagUniqueIdentifier, id.kind, []byte(id.value)) }

// String names the object to people.
func (id identifier) String() string {
	if id.kind == typeText {
		return printable(id.value, 80)
	}
	return fmt.Sprintf("%x", id.value)
}

// maxObjects bounds how many objects of one name are told of.
const maxObjects = 8

// locate finds the objects of a type and name.
func (s *Store) locate(ctx context.Context, srv *server, object uint32, name string) ([]identifier, error) {
	out, err := s.call(ctx, srv, operation{opLocate, func(e *encoder) {
		e.integer(tagMaximumItems, maxObjects)
		e.attributes(srv.version, 0, tagAttributes, []attribute{enumAttribute("Object Type", tagObjectType, object), nameAttribute(name)})
	}})
	if err != nil {
		return nil, err
	}
	var found []identifier
	for it := range out[0].items() {
		if it.tag != tagUniqueIdentifier || len(found) >= maxObjects {
			continue
		}
		id, ok := identifierOf(it)
		if !ok {
			return nil, errors.New("the server names an object in a way that is not known here")
		}
		found = append(found, id)
	}
	return found, nil
}

// public reads a public key.
func (s *Store) public(ctx context.Context, srv *server, id identifier, want template) (crypto.PublicKey, error) {
	get := func(format uint32) (crypto.PublicKey, error) {
		out, err := s.call(ctx, srv, operation{opGet, func(e *encoder) {
			e.identifier(id)
			if format != 0 {
				e.enumeration(tagKeyFormatType, format)
			}
		}})
		if err != nil {
			return nil, err
		}
		return readPublic(out[0], want)
	}
	// First as the server likes: some convert no key.
	key, err := get(0)
	if errors.Is(err, errFormat) {
		if also, again := get(formatX509); again == nil {
			return also, nil
		}
	}
	return key, err
}

// state is the state of an object; 0 where the server does not say.
func (s *Store) state(ctx context.Context, srv *server, id identifier) (uint32, error) {
	out, err := s.call(ctx, srv, operation{opGetAttributes, func(e *encoder) {
		e.identifier(id)
		if srv.version.structures() {
			e.enumeration(tagAttributeReference, tagState)
		} else {
			e.text(tagAttributeName, "State")
		}
	}})
	if err != nil {
		return 0, err
	}
	if n, ok := out[0].find(tagAttributes, tagState).number(); ok {
		return n, nil
	}
	for it := range out[0].items() {
		if it.tag == tagAttribute && it.find(tagAttributeName).text(20) == "State" {
			n, _ := it.find(tagAttributeValue).number()
			return n, nil
		}
	}
	return 0, nil
}

// activate has a private key sign. One that was used up is an error.
func (s *Store) activate(ctx context.Context, srv *server, id identifier) error {
	state, err := s.state(ctx, srv, id)
	switch {
	case err != nil:
		return err
	case state == stateActive || state == 0 && !srv.can[opActivate]:
		return nil
	case state > statePreActive:
		return problem{
			fmt.Errorf("the private key (object %s) is %s on the server and signs no more", id, stateName(state)),
			"have it active there, or exchange it: sluice key roll ZONE",
		}
	}
	_, err = s.call(ctx, srv, operation{opActivate, func(e *encoder) { e.identifier(id) }})
	if _, ok := refused(err); ok && s.active(ctx, srv, id) {
		return nil // another process did it meanwhile
	}
	return err
}

// destroy deletes objects. An active one is revoked first.
func (s *Store) destroy(ctx context.Context, srv *server, ids ...identifier) error {
	var all error
	for _, id := range ids {
		op := operation{opDestroy, func(e *encoder) { e.identifier(id) }}
		_, err := s.call(ctx, srv, op)
		gone := stale(err)
		if _, ok := refused(err); ok && (!gone || s.active(ctx, srv, id)) {
			_, again := s.call(ctx, srv, operation{opRevoke, func(e *encoder) {
				e.identifier(id)
				e.structure(tagRevocationReason, func() { e.enumeration(tagRevocationReasonCode, revokeCessation) })
			}})
			if again == nil {
				_, again = s.call(ctx, srv, op)
			}
			err, gone = again, stale(again)
		}
		if err != nil && !gone {
			all = errors.Join(all, fmt.Errorf("delete object %s: %w", id, err))
		}
	}
	return all
}

// active reports whether an object is in use.
func (s *Store) active(ctx context.Context, srv *server, id identifier) bool {
	state, err := s.state(ctx, srv, id)
	return err == nil && state == stateActive
}

// object is a key pair on the server.
type object struct {
	private, publicID identifier
	public            crypto.PublicKey
}

// find gives the key pair behind a reference. What was found before is not
// looked for again.
func (s *Store) find(ctx context.Context, srv *server, ref reference) (*object, error) {
	name := ref.String()
	srv.mu.Lock()
	o := srv.keys[name]
	srv.mu.Unlock()
	if o != nil {
		return o, nil
	}
	o, err := s.findPair(ctx, srv, ref)
	if err != nil {
		return nil, err
	}
	srv.mu.Lock()
	srv.keys[name] = o
	srv.mu.Unlock()
	return o, nil
}

// forget has a key pair looked for again.
func (srv *server) forget(ref reference) {
	srv.mu.Lock()
	delete(srv.keys, ref.String())
	srv.mu.Unlock()
}

// findPair looks for a key pair by its name, and checks that its public key is
// the one that the reference means.
func (s *Store) findPair(ctx context.Context, srv *server, ref reference) (*object, error) {
	o := &object{}
	for _, row := range []struct {
		object uint32
		what   string
		suffix string
		to     *identifier
	}{{objectPrivateKey, "private", privateSuffix, &o.private}, {objectPublicKey, "public", publicSuffix, &o.publicID}} {
		found, err := s.locate(ctx, srv, row.object, ref.name+row.suffix)
		switch {
		case err != nil:
			return nil, err
		case len(found) == 0:
			return nil, fmt.Errorf("keystore %q, %s: no %s key has the name %q: %w", s.token.Name, s.serverName(), row.what, ref.name+row.suffix, keymgr.ErrNoKey)
		case len(found) > 1:
			return nil, problem{
				fmt.Errorf("keystore %q, %s: %d %s keys have the name %q: objects %v; one must be meant", s.token.Name, s.serverName(), len(found), row.what, ref.name+row.suffix, found),
				"take the other ones off the server, or give them another name",
			}
		}
		*row.to = found[0]
	}
	public, err := s.public(ctx, srv, o.publicID, template{})
	if err != nil {
		return nil, err
	}
	print, err := fingerprint(public)
	if err != nil {
		return nil, err
	}
	if print != ref.print {
		return nil, problem{
			fmt.Errorf("keystore %q, %s: the key of the name %q is another one: its public key has the fingerprint %x, that of this zone %x", s.token.Name, s.serverName(), ref.name, print, ref.print),
			"two servers must not have different keys under one name: see that this is the right server",
		}
	}
	o.public = public
	return o, s.activate(ctx, srv, o.private)
}
