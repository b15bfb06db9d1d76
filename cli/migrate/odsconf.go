package migrate

import (
	"bytes"
	"encoding/base64"
	"encoding/xml"
	"errors"
	"fmt"
	"io"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"sluice/xfr"
)

// maxODSFile bounds a configuration file of OpenDNSSEC in bytes: a list of a
// million zones has less.
const maxODSFile = 1 << 30

// odsText is the text of an element, and the line that it begins in.
type odsText struct {
	text string
	line int
}

// UnmarshalXML implements xml.Unmarshaler.
func (t *odsText) UnmarshalXML(d *xml.Decoder, start xml.StartElement) error {
	t.line, _ = d.InputPos()
	err := d.DecodeElement(&t.text, &start)
	t.text = strings.TrimSpace(t.text)
	return err
}

// readODS reads a file of OpenDNSSEC into a struct of package xml.
func readODS(path string, into any) error {
	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close() //nolint:errcheck // opened for reading
	text, err := io.ReadAll(io.LimitReader(f, maxODSFile+1))
	if err != nil {
		return err
	}
	if len(text) > maxODSFile {
		return fmt.Errorf("%s: larger than %d bytes", path, maxODSFile)
	}
	return parseODS(path, text, into)
}

func parseODS(path string, text []byte, into any) error {
	d := xml.NewDecoder(bytes.NewReader(text))
	err := d.Decode(into)
	if syntax, ok := errors.AsType[*xml.SyntaxError](err); ok {
		return fmt.Errorf("%s:%d: %s", path, syntax.Line, syntax.Msg)
	}
	if err != nil {
		line, _ := d.InputPos()
		return fmt.Errorf("%s:%d: %w", path, line, err)
	}
	return nil
}

// odsConf is conf.xml.
type odsConf struct {
	path string

	XMLName      xml.Name        `xml:"Configuration"`
	Repositories []odsRepository `xml:"RepositoryList>Repository"`
	PolicyFile   odsText         `xml:"Common>PolicyFile"`
	ZoneListFile odsText         `xml:"Common>ZoneListFile"`
	Enforcer     struct {
		SQLite  odsText   `xml:"Datastore>SQLite"`
		MySQL   *struct{} `xml:"Datastore>MySQL"`
		Manual  *struct{} `xml:"ManualKeyGeneration"`
		Submit  odsText   `xml:"DelegationSignerSubmitCommand"`
		Retract odsText   `xml:"DelegationSignerRetractCommand"`
	} `xml:"Enforcer"`
	Signer struct {
		WorkingDirectory odsText `xml:"WorkingDirectory"`
		Interfaces       []struct {
			Address odsText `xml:"Address"`
			Port    odsText `xml:"Port"`
		} `xml:"Listener>Interface"`
		NotifyCommand odsText `xml:"NotifyCommand"`
	} `xml:"Signer"`
}

// odsRepository is a token.
type odsRepository struct {
	Name       string    `xml:"name,attr"`
	Module     odsText   `xml:"Module"`
	TokenLabel odsText   `xml:"TokenLabel"`
	PIN        odsText   `xml:"PIN"`
	Backup     *struct{} `xml:"RequireBackup"`
}

// Where OpenDNSSEC has its files where conf.xml does not say so.
const (
	odsSignerFolder = "/var/lib/opendnssec/signer"
	odsPort         = 15354
)

// readODSConf reads conf.xml; source is that file, or the folder that it is in.
func readODSConf(source string) (*odsConf, error) {
	info, err := os.Stat(source)
	if err != nil {
		return nil, err
	}
	path := source
	if info.IsDir() {
		path = filepath.Join(source, "conf.xml")
	}
	c := &odsConf{path: path}
	if err := readODS(path, c); err != nil {
		return nil, err
	}
	if c.Enforcer.MySQL != nil {
		return nil, fmt.Errorf("%s: the enforcer's database is in MySQL: make a copy in SQLite with OpenDNSSEC's own "+
			"convert_mysql_to_sqlite -i DATABASE -o kasp.db, and read a copy of the folder whose conf.xml has <Datastore><SQLite>PATH</SQLite></Datastore>", path)
	}
	if c.Enforcer.SQLite.text == "" {
		return nil, fmt.Errorf("%s: no <SQLite> in <Datastore>: where is the enforcer's database?", path)
	}
	if c.PolicyFile.text == "" {
		return nil, fmt.Errorf("%s: no <PolicyFile>", path)
	}
	return c, nil
}

// at is a path that conf.xml names: a relative one is below its folder.
func (c *odsConf) at(path string) string {
	if filepath.IsAbs(path) {
		return filepath.Clean(path)
	}
	return filepath.Join(filepath.Dir(c.path), path)
}

func (c *odsConf) repository(name string) *odsRepository {
	for i := range c.Repositories {
		if c.Repositories[i].Name == name {
			return &c.Repositories[i]
		}
	}
	return nil
}

// signerFolder is where the signer keeps what it works with.
func (c *odsConf) signerFolder() string {
	if text := c.Signer.WorkingDirectory.text; text != "" {
		return c.at(text)
	}
	return odsSignerFolder
}

// listener is where the signer gives zones out; an address that stands for all
// is that of this machine.
func (c *odsConf) listener() (netip.AddrPort, error) {
	addr, port := netip.AddrFrom4([4]byte{127, 0, 0, 1}), uint16(odsPort)
	if len(c.Signer.Interfaces) == 0 {
		return netip.AddrPortFrom(addr, port), nil
	}
	at := c.Signer.Interfaces[0]
	if text := at.Address.text; text != "" {
		a, err := netip.ParseAddr(text)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("%s:%d: <Address>: %w", c.path, at.Address.line, err)
		}
		if !a.IsUnspecified() {
			addr = a
		}
	}
	if text := at.Port.text; text != "" {
		n, err := strconv.ParseUint(text, 10, 16)
		if err != nil {
			return netip.AddrPort{}, fmt.Errorf("%s:%d: <Port> %q is none", c.path, at.Port.line, text)
		}
		port = uint16(n)
	}
	return netip.AddrPortFrom(addr, port), nil
}

// odsKeystoreName is the name of a repository here.
func odsKeystoreName(name string) string { return keystoreName(name, "opendnssec") }

// odsAdapter is addns.xml: how a zone comes in and goes out by DNS.
type odsAdapter struct {
	path string

	XMLName xml.Name    `xml:"Adapter"`
	TSIG    []odsTSIG   `xml:"DNS>TSIG"`
	Request []odsRemote `xml:"DNS>Inbound>RequestTransfer>Remote"`
	Allow   []odsPeer   `xml:"DNS>Inbound>AllowNotify>Peer"`
	Provide []odsPeer   `xml:"DNS>Outbound>ProvideTransfer>Peer"`
	Notify  []odsRemote `xml:"DNS>Outbound>Notify>Remote"`
}

type odsTSIG struct {
	Name      odsText `xml:"Name"`
	Algorithm odsText `xml:"Algorithm"`
	Secret    odsText `xml:"Secret"`
}

type odsRemote struct {
	Address odsText `xml:"Address"`
	Port    odsText `xml:"Port"`
	Key     odsText `xml:"Key"`
}

type odsPeer struct {
	Prefix odsText `xml:"Prefix"`
	Key    odsText `xml:"Key"`
}

func readODSAdapter(path string) (*odsAdapter, error) {
	a := &odsAdapter{path: path}
	if err := readODS(path, a); err != nil {
		return nil, err
	}
	return a, nil
}

// server is a remote as policies and sources here write it.
func (a *odsAdapter) server(r odsRemote) (string, error) {
	addr, err := netip.ParseAddr(r.Address.text)
	if err != nil {
		return "", fmt.Errorf("%s:%d: <Address>: %w", a.path, r.Address.line, err)
	}
	text := addr.String()
	if port := r.Port.text; port != "" && port != "53" {
		n, err := strconv.ParseUint(port, 10, 16)
		if err != nil {
			return "", fmt.Errorf("%s:%d: <Port> %q is none", a.path, r.Port.line, port)
		}
		text = netip.AddrPortFrom(addr, uint16(n)).String()
	}
	return text, nil
}

// odsWithKey is a server or prefix with its TSIG key.
func odsWithKey(text string, key odsText) string {
	if key.text == "" {
		return text
	}
	return text + "^" + odsTSIGName(key.text)
}

// odsTSIGName is the name of a TSIG key as people write it here.
func odsTSIGName(text string) string { return strings.ToLower(strings.TrimSuffix(text, ".")) }

// peers is access lists as policies here write them.
func (a *odsAdapter) peers(list []odsPeer) (out []string, err error) {
	for _, p := range list {
		prefixes := []string{p.Prefix.text}
		if p.Prefix.text == "" {
			prefixes = []string{"0.0.0.0/0", "::/0"} // whoever has the key
		}
		for _, text := range prefixes {
			text = odsWithKey(text, p.Key)
			if _, err := xfr.ParsePrefix(text); err != nil {
				return nil, fmt.Errorf("%s:%d: <Prefix>: %w", a.path, max(p.Prefix.line, p.Key.line), err)
			}
			out = append(out, text)
		}
	}
	return out, nil
}

// keys is the TSIG keys.
func (a *odsAdapter) keys() (out []TSIGKey, err error) {
	for _, t := range a.TSIG {
		secret, err := base64.StdEncoding.DecodeString(strings.Join(strings.Fields(t.Secret.text), ""))
		if err != nil || len(secret) == 0 {
			return nil, fmt.Errorf("%s:%d: <Secret> of TSIG key %q is no base64", a.path, t.Secret.line, t.Name.text)
		}
		algorithm := strings.ToLower(strings.TrimSuffix(t.Algorithm.text, "."))
		if algorithm == "hmac-md5.sig-alg.reg.int" {
			algorithm = "hmac-md5"
		}
		out = append(out, TSIGKey{Name: odsTSIGName(t.Name.text), Algorithm: algorithm, Secret: secret})
	}
	return out, nil
}
