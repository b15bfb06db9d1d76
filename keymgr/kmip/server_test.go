package kmip

import (
	"bytes"
	"crypto"
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/rsa"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"encoding/binary"
	"fmt"
	"io"
	"math/big"
	"net"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/ed448"
	"golang.org/x/crypto/cryptobyte"
	"golang.org/x/crypto/cryptobyte/asn1"

	"sluice/keymgr"
)

// fakeObject is an object on a fake server.
type fakeObject struct {
	object  uint32
	name    string
	state   uint32
	private crypto.Signer
	public  crypto.PublicKey
	curve   uint32
}

// fakeServer is a KMIP server in memory that fails as it is told. Its fields may
// be changed by set.
type fakeServer struct {
	ca       *authority
	listener net.Listener
	config   *tls.Config

	mu       sync.Mutex
	versions []version
	vendor   string
	password string // "" wants none
	lacks    []uint32
	onlyEC   bool   // knows curves by the algorithm EC
	open     bool   // refuses attributes that protect keys
	active   bool   // new keys are active
	format   uint32 // of public keys where none is asked for
	convert  bool   // gives X.509 where that is asked for
	plain    bool   // ECDSA as r|s
	digests  bool   // signs digests alone
	batch    int    // largest batch; 0 any
	batchHow string // what happens to a larger one: message, item, drop, one
	spoil    bool   // signatures are wrong
	integers bool   // objects are named by integers
	reply    func(request, response []byte) []byte
	hold     chan struct{} // nothing is answered before it is closed
	next     uint32
	objects  map[uint32]*fakeObject
	calls    map[uint32]int // by operation
	logins   int
	largest  int // batch that was answered
	conns    map[net.Conn]bool
	seen     []version // of requests
}

// newFakeServer starts a server.
func newFakeServer(t testing.TB) *fakeServer {
	t.Helper()
	f := &fakeServer{
		ca: newAuthority(t), vendor: "fake", versions: versions(), format: formatX509, convert: true,
		objects: map[uint32]*fakeObject{}, calls: map[uint32]int{}, conns: map[net.Conn]bool{},
	}
	cert, key := f.ca.issue(t, "kmip.test", true)
	pair, err := tls.X509KeyPair([]byte(cert), []byte(key))
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	pool.AddCert(f.ca.cert)
	f.config = &tls.Config{Certificates: []tls.Certificate{pair}, ClientCAs: pool, ClientAuth: tls.RequireAndVerifyClientCert}
	f.listen(t, "127.0.0.1:0")
	t.Cleanup(f.stop)
	return f
}

func (f *fakeServer) listen(t testing.TB, addr string) {
	t.Helper()
	l, err := tls.Listen("tcp", addr, f.config)
	if err != nil {
		t.Fatal(err)
	}
	f.listener = l
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				return
			}
			f.set(func() { f.conns[c] = true })
			go f.serve(c)
		}
	}()
}

// stop closes the server and its connections.
func (f *fakeServer) stop() {
	_ = f.listener.Close()
	f.cut()
}

// cut closes the connections.
func (f *fakeServer) cut() {
	f.set(func() {
		for c := range f.conns {
			_ = c.Close()
		}
		clear(f.conns)
	})
}

func (f *fakeServer) set(fn func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	fn()
}

// login is one that the server takes.
func (f *fakeServer) login(t testing.TB) keymgr.ServerLogin {
	t.Helper()
	l := keymgr.ServerLogin{CA: f.ca.pem}
	l.Certificate, l.Key = f.ca.issue(t, "client", false)
	return l
}

func (f *fakeServer) pin() string {
	leaf := f.config.Certificates[0].Leaf
	sum := sha256.Sum256(leaf.RawSubjectPublicKeyInfo)
	return pinPrefix + base64.StdEncoding.EncodeToString(sum[:])
}

// store opens a keystore on the server.
func (f *fakeServer) store(t testing.TB, change ...func(*keymgr.Token, *keymgr.ServerLogin)) *Store {
	t.Helper()
	token := keymgr.Token{Name: "kms", Server: keymgr.Server{Address: f.listener.Addr().String()}, Sessions: 4, Timeout: 5 * time.Second}
	login := f.login(t)
	for _, fn := range change {
		fn(&token, &login)
	}
	servers := NewServers(t.TempDir(), time.Now)
	secret, err := login.Secret()
	if err != nil {
		t.Fatal(err)
	}
	if err := servers.KeepPIN(token.Name, secret); err != nil {
		t.Fatal(err)
	}
	s := servers.open(token)
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	})
	return s
}

func (f *fakeServer) serve(c net.Conn) {
	defer c.Close() //nolint:errcheck // it is over
	for {
		head := make([]byte, headerLength)
		if _, err := io.ReadFull(c, head); err != nil {
			return
		}
		request := append(head, make([]byte, binary.BigEndian.Uint32(head[4:]))...)
		if _, err := io.ReadFull(c, request[headerLength:]); err != nil {
			return
		}
		f.mu.Lock()
		hold, reply := f.hold, f.reply
		f.mu.Unlock()
		if hold != nil {
			<-hold
		}
		response := f.answer(request)
		if reply != nil {
			response = reply(request, response)
		}
		if response == nil {
			return
		}
		if _, err := c.Write(response); err != nil {
			return
		}
	}
}

// failure is what the server refuses with.
type failure struct {
	reason uint32
	text   string
}

func (f *fakeServer) answer(request []byte) []byte {
	f.mu.Lock()
	defer f.mu.Unlock()
	root, err := decode(request)
	if err != nil || root.tag != tagRequestMessage {
		return whole(version{1, 0}, failure{reasonInvalidMessage, "no message"})
	}
	header := root.find(tagRequestHeader)
	major, _ := header.find(tagProtocolVersion, tagProtocolVersionMajor).number()
	minor, _ := header.find(tagProtocolVersion, tagProtocolVersionMinor).number()
	v := version{major, minor}
	f.seen = append(f.seen, v)
	if !slices.Contains(f.versions, v) {
		return whole(f.versions[0], failure{reasonInvalidMessage, "version " + v.String()})
	}
	if f.password != "" {
		value := header.find(tagAuthentication, tagCredential, tagCredentialValue)
		f.logins++
		if string(value.find(tagPassword).value) != f.password || value.find(tagUsername).text(50) != "sluice" {
			return whole(v, failure{reasonAuthentication, "who are you?"})
		}
	}
	var asked []item
	for it := range root.items() {
		if it.tag == tagBatchItem {
			asked = append(asked, it)
		}
	}
	if count, _ := header.find(tagBatchCount).number(); int(count) != len(asked) {
		return whole(v, failure{reasonInvalidMessage, "batch count"})
	}
	if f.batch > 0 && len(asked) > f.batch {
		switch f.batchHow {
		case "message":
			return whole(v, failure{0x3A, "batch too large"})
		case "drop":
			return nil
		case "one":
			asked = asked[:1]
		}
	}
	f.largest = max(f.largest, len(asked))
	e := &encoder{}
	e.structure(tagResponseMessage, func() {
		e.structure(tagResponseHeader, func() {
			e.version(v)
			e.integer(tagBatchCount, uint32(len(asked)))
		})
		for _, it := range asked {
			f.item(e, v, it, len(asked))
		}
	})
	return e.b
}

func whole(v version, why failure) []byte {
	e := &encoder{}
	e.structure(tagResponseMessage, func() {
		e.structure(tagResponseHeader, func() { e.version(v); e.integer(tagBatchCount, 1) })
		e.structure(tagBatchItem, func() {
			e.enumeration(tagResultStatus, 1)
			e.enumeration(tagResultReason, why.reason)
			e.text(tagResultMessage, why.text)
		})
	})
	return e.b
}

func (f *fakeServer) item(e *encoder, v version, it item, count int) {
	op, _ := it.find(tagOperation).number()
	f.calls[op]++
	payload := &encoder{}
	why := f.do(payload, v, op, it.find(tagRequestPayload))
	if f.batch > 0 && count > f.batch && f.batchHow == "item" {
		why = &failure{0x08, "no batches"}
	}
	e.structure(tagBatchItem, func() {
		e.enumeration(tagOperation, op)
		if id := it.find(tagUniqueBatchItemID); id.tag != 0 {
			e.bytes(tagUniqueBatchItemID, id.value)
		}
		if why != nil {
			e.enumeration(tagResultStatus, 1)
			e.enumeration(tagResultReason, why.reason)
			e.text(tagResultMessage, why.text)
			return
		}
		e.enumeration(tagResultStatus, 0)
		e.structure(tagResponsePayload, func() { e.b = append(e.b, payload.b...) })
	})
}

func (f *fakeServer) do(e *encoder, v version, op uint32, in item) *failure {
	if slices.Contains(f.lacks, op) {
		return &failure{0x05, "not here"}
	}
	switch op {
	case opDiscoverVersions:
		for _, have := range f.versions {
			e.version(have)
		}
		return nil
	case opQuery:
		for _, have := range []uint32{opCreateKeyPair, opLocate, opGet, opGetAttributes, opActivate, opRevoke, opDestroy, opSign} {
			if !slices.Contains(f.lacks, have) {
				e.enumeration(tagOperation, have)
			}
		}
		e.text(tagVendorIdentification, f.vendor)
		return nil
	case opCreateKeyPair:
		return f.create(e, v, in)
	case opLocate:
		return f.locate(e, v, in)
	}
	id := in.find(tagUniqueIdentifier)
	number := uint32(0)
	if id.kind == typeInteger {
		number, _ = id.number()
	} else {
		_, _ = fmt.Sscanf(id.text(20), "object-%d", &number)
	}
	o := f.objects[number]
	if o == nil || (id.kind == typeInteger) != f.integers {
		return &failure{reasonItemNotFound, "no such object"}
	}
	switch op {
	case opGet:
		return f.get(e, in, number, o)
	case opGetAttributes:
		return attributeOf(e, v, in, o)
	case opActivate:
		if o.state != statePreActive {
			return &failure{reasonWrongLifeCycle, "it is active"}
		}
		o.state = stateActive
	case opRevoke:
		o.state = 3
	case opDestroy:
		if o.state == stateActive {
			return &failure{reasonWrongLifeCycle, "it is active"}
		}
		delete(f.objects, number)
	case opSign:
		return f.sign(e, in, o)
	default:
		return &failure{0x05, "not known"}
	}
	f.identify(e, tagUniqueIdentifier, number)
	return nil
}

func (f *fakeServer) identify(e *encoder, tag, number uint32) {
	if f.integers {
		e.integer(tag, number)
		return
	}
	e.text(tag, fmt.Sprintf("object-%d", number))
}

// attributesOf reads attributes as a version has them, by their names in 1.x.
func attributesOf(v version, in item, old, tag uint32) map[string]item {
	out := map[string]item{}
	if !v.structures() {
		for it := range in.find(old).items() {
			out[it.find(tagAttributeName).text(50)] = it.find(tagAttributeValue)
		}
		return out
	}
	for it := range in.find(tag).items() {
		name := map[uint32]string{
			tagCryptographicAlgorithm: "Cryptographic Algorithm", tagCryptographicLength: "Cryptographic Length", tagName: "Name",
			tagCryptographicDomain: "Cryptographic Domain Parameters", tagCryptographicUsageMask: "Cryptographic Usage Mask",
			tagSensitive: "Sensitive", tagExtractable: "Extractable",
		}[it.tag]
		out[name] = it
	}
	return out
}

func (f *fakeServer) create(e *encoder, v version, in item) *failure {
	common := attributesOf(v, in, tagCommonTemplateAttribute, tagCommonAttributes)
	private := attributesOf(v, in, tagPrivateKeyTemplateAttribute, tagPrivateKeyAttributes)
	public := attributesOf(v, in, tagPublicKeyTemplateAttribute, tagPublicKeyAttributes)
	if _, has := private["Sensitive"]; has && f.open {
		return &failure{0x07, "Sensitive is not known"}
	}
	if usage, _ := private["Cryptographic Usage Mask"].number(); usage != usageSign {
		return &failure{0x07, "usage"}
	}
	algorithm, _ := common["Cryptographic Algorithm"].number()
	length, _ := common["Cryptographic Length"].number()
	curve, _ := common["Cryptographic Domain Parameters"].find(tagRecommendedCurve).number()
	if f.onlyEC && algorithm != algorithmRSA && algorithm != algorithmEC {
		return &failure{0x07, "algorithm"}
	}
	var key crypto.Signer
	var err error
	switch {
	case algorithm == algorithmRSA:
		key, err = rsa.GenerateKey(rand.Reader, int(length))
	case curve == curveP256:
		key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	case curve == curveP384:
		key, err = ecdsa.GenerateKey(elliptic.P384(), rand.Reader)
	case curve == curve25519:
		_, key, err = ed25519.GenerateKey(rand.Reader)
	case curve == curve448:
		_, key, err = ed448.GenerateKey(rand.Reader)
	default:
		return &failure{0x07, "curve"}
	}
	if err != nil {
		return &failure{0x100, err.Error()}
	}
	state := uint32(statePreActive)
	if f.active {
		state = stateActive
	}
	f.next += 2
	f.objects[f.next-1] = &fakeObject{objectPrivateKey, private["Name"].find(tagNameValue).text(200), state, key, key.Public(), curve}
	f.objects[f.next] = &fakeObject{objectPublicKey, public["Name"].find(tagNameValue).text(200), state, nil, key.Public(), curve}
	f.identify(e, tagPrivateKeyUniqueIdentifier, f.next-1)
	f.identify(e, tagPublicKeyUniqueIdentifier, f.next)
	return nil
}

func (f *fakeServer) locate(e *encoder, v version, in item) *failure {
	var object uint32
	var name string
	if v.structures() {
		object, _ = in.find(tagAttributes, tagObjectType).number()
		name = in.find(tagAttributes, tagName, tagNameValue).text(200)
	} else {
		for it := range in.items() {
			switch value := it.find(tagAttributeValue); it.find(tagAttributeName).text(50) {
			case "Object Type":
				object, _ = value.number()
			case "Name":
				name = value.find(tagNameValue).text(200)
			}
		}
	}
	for id, o := range f.objects {
		if o.object == object && o.name == name {
			f.identify(e, tagUniqueIdentifier, id)
		}
	}
	return nil
}

func attributeOf(e *encoder, v version, in item, o *fakeObject) *failure {
	if v.structures() {
		if n, _ := in.find(tagAttributeReference).number(); n != tagState {
			return &failure{0x07, "attribute"}
		}
		e.structure(tagAttributes, func() { e.enumeration(tagState, o.state) })
		return nil
	}
	if in.find(tagAttributeName).text(20) != "State" {
		return &failure{0x07, "attribute"}
	}
	e.structure(tagAttribute, func() {
		e.text(tagAttributeName, "State")
		e.enumeration(tagAttributeValue, o.state)
	})
	return nil
}

// get gives the public key in the format that the test wants.
func (f *fakeServer) get(e *encoder, in item, id uint32, o *fakeObject) *failure {
	format := f.format
	if want, ok := in.find(tagKeyFormatType).number(); ok {
		if want != format && !f.convert {
			return &failure{0x10, "format"}
		}
		format = want
	}
	if _, is := o.public.(*rsa.PublicKey); is && format == formatEC {
		format = formatRSA
	}
	f.identify(e, tagUniqueIdentifier, id)
	e.structure(tagPublicKey, func() {
		e.structure(tagKeyBlock, func() {
			e.enumeration(tagKeyFormatType, format)
			e.structure(tagKeyValue, func() { material(e, format, o) })
		})
	})
	return nil
}

func material(e *encoder, format uint32, o *fakeObject) {
	var point []byte
	switch pub := o.public.(type) {
	case *rsa.PublicKey:
		switch format {
		case formatPKCS1:
			e.bytes(tagKeyMaterial, x509.MarshalPKCS1PublicKey(pub))
			return
		case formatRSA:
			e.structure(tagKeyMaterial, func() {
				e.raw(tagModulus, typeBigInteger, append(make([]byte, 8), pub.N.Bytes()...))
				e.raw(tagPublicExponent, typeBigInteger, binary.BigEndian.AppendUint64(nil, uint64(pub.E)))
			})
			return
		}
	case *ecdsa.PublicKey:
		point, _ = pub.Bytes()
	case ed25519.PublicKey:
		point = pub
	case ed448.PublicKey:
		point = pub
	}
	switch format {
	case formatRaw:
		e.bytes(tagKeyMaterial, point)
	case formatEC, formatECDSA:
		e.structure(tagKeyMaterial, func() {
			e.enumeration(tagRecommendedCurve, o.curve)
			e.bytes(tagQString, point)
		})
	case formatX509:
		der, err := x509.MarshalPKIXPublicKey(o.public)
		if err != nil { // Ed448
			der = append([]byte("\x30\x43\x30\x05\x06\x03\x2b\x65\x71\x03\x3a\x00"), point...)
		}
		e.bytes(tagKeyMaterial, der)
	default:
		e.bytes(tagKeyMaterial, []byte("of a kind that nobody knows"))
	}
}

func (f *fakeServer) sign(e *encoder, in item, o *fakeObject) *failure {
	if o.private == nil || o.state != stateActive {
		return &failure{reasonWrongLifeCycle, "it is " + stateName(o.state)}
	}
	algorithm, _ := in.find(tagCryptographicParameters, tagHashingAlgorithm).number()
	hash := map[uint32]crypto.Hash{hashSHA256: crypto.SHA256, hashSHA384: crypto.SHA384, hashSHA512: crypto.SHA512}[algorithm]
	data, digest := in.find(tagData), in.find(tagDigestedData)
	input := data.value
	switch {
	case digest.tag != 0:
		input = digest.value
	case f.digests && hash != 0:
		return &failure{0x3E, "Digested Data is missing"}
	case hash != 0:
		h := hash.New()
		h.Write(input)
		input = h.Sum(nil)
	}
	sig, err := o.private.Sign(rand.Reader, input, hash)
	if err != nil {
		return &failure{0x0A, err.Error()}
	}
	if pub, ok := o.public.(*ecdsa.PublicKey); ok && f.plain {
		sig = plainSignature(sig, (pub.Curve.Params().BitSize+7)/8)
	}
	if f.spoil {
		sig[len(sig)-1] ^= 1
	}
	e.bytes(tagSignatureData, sig)
	return nil
}

func plainSignature(der []byte, size int) []byte {
	var inner cryptobyte.String
	input := cryptobyte.String(der)
	r, s := new(big.Int), new(big.Int)
	if !input.ReadASN1(&inner, asn1.SEQUENCE) || !inner.ReadASN1Integer(r) || !inner.ReadASN1Integer(s) {
		return nil
	}
	out := make([]byte, 2*size)
	r.FillBytes(out[:size])
	s.FillBytes(out[size:])
	return out
}

// clone copies a response before a test changes it.
func clone(b []byte) []byte { return bytes.Clone(b) }
