package xfr

import (
	"bytes"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/miekg/dns"

	"sluice/signer/zone"
)

var testSecret = []byte("0123456789abcdef0123456789abcdef")

func tsigKeys(tb testing.TB, algorithm string) (Keys, map[string]string) {
	tb.Helper()
	name, err := zone.ParseName("transfer.key.")
	if err != nil {
		tb.Fatal(err)
	}
	return memKeys{name: {algorithm, testSecret}},
		map[string]string{"transfer.key.": base64.StdEncoding.EncodeToString(testSecret)}
}

var miekgNames = map[string]string{
	"hmac-sha1": dns.HmacSHA1, "hmac-sha224": dns.HmacSHA224, "hmac-sha256": dns.HmacSHA256,
	"hmac-sha384": dns.HmacSHA384, "hmac-sha512": dns.HmacSHA512,
}

func TestRFC8945_5_3_1_EveryMessageOfATransferIsSigned(t *testing.T) {
	view := largeView(t)
	want := whole(t, view)
	for algorithm, miekg := range miekgNames {
		keys, secrets := tsigKeys(t, algorithm)
		var seen string
		view.allow = func(p Peer) bool { seen = p.Key; return p.Key == "transfer.key." }
		addr, _ := startServer(t, Config{Source: memSource{"\x07example\x00": view}, Keys: keys, WeakTSIG: true})
		m := new(dns.Msg).SetAxfr("example.").SetTsig("Transfer.KEY.", miekg, 300, time.Now().Unix())
		secrets["Transfer.KEY."] = secrets["transfer.key."] // the client looks names up as they stand
		// The client verifies each message against the one before.
		got := texts(fetch(t, addr, m, &dns.Transfer{TsigSecret: secrets}))
		if d := cmp.Diff(want, sorted(got)); d != "" {
			t.Errorf("%s: %s", algorithm, d)
		}
		if seen != "transfer.key." {
			t.Errorf("%s: policy saw key %q", algorithm, seen)
		}
		// The counts again, without the client's leniency for unsigned messages.
		m = new(dns.Msg).SetAxfr("example.").SetTsig("transfer.key.", miekg, 300, time.Now().Unix())
		packed, _, err := dns.TsigGenerate(m, secrets["transfer.key."], "", false)
		if err != nil {
			t.Fatal(err)
		}
		raw := new(dns.Msg)
		if err := raw.Unpack(packed); err != nil {
			t.Fatal(err)
		}
		c := dial(t, addr, raw)
		messages := 0
		for soas := 0; soas < 2; messages++ {
			wire, r := readMessage(t, c)
			if r == nil || r.IsTsig() == nil || len(wire) > maxMessage {
				t.Fatalf("%s: message %d is %v", algorithm, messages, r)
			}
			for _, rr := range r.Answer {
				if rr.Header().Rrtype == dns.TypeSOA {
					soas++
				}
			}
		}
		if messages < 10 {
			t.Errorf("%s: %d messages", algorithm, messages)
		}
	}
}

// signed is a SOA query signed with miekg/dns, changed after signing.
func signed(tb testing.TB, secret []byte, key, algorithm string, at int64, change func([]byte) []byte) (wire []byte, mac string) {
	tb.Helper()
	m := new(dns.Msg).SetQuestion("example.", dns.TypeSOA).SetTsig(key, algorithm, 300, at)
	wire, mac, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString(secret), "", false)
	if err != nil {
		tb.Fatal(err)
	}
	if change != nil {
		wire = change(wire)
	}
	return wire, mac
}

// checkMAC computes the MAC of a first answer anew; miekg/dns does so for
// answers without error only.
func checkMAC(tb testing.TB, answer []byte, ts *dns.TSIG, requestMAC string) {
	tb.Helper()
	const key, algorithm = "\x08transfer\x03key\x00", "\x0bhmac-sha256\x00"
	before, err := hex.DecodeString(requestMAC)
	if err != nil {
		tb.Fatal(err)
	}
	if ts.Error == dns.RcodeBadTrunc {
		before = before[:16] // as it was sent
	}
	message := bytes.Clone(answer[:bytes.LastIndex(answer, []byte(key))])
	message[11]--
	covered := binary.BigEndian.AppendUint16(nil, uint16(len(before)))
	covered = append(append(covered, before...), message...)
	covered = append(covered, key+"\x00\xff\x00\x00\x00\x00"+algorithm...)
	covered = binary.BigEndian.AppendUint64(covered, ts.TimeSigned<<16|uint64(ts.Fudge))
	covered = binary.BigEndian.AppendUint16(covered, ts.Error)
	covered = binary.BigEndian.AppendUint16(covered, ts.OtherLen)
	other, err := hex.DecodeString(ts.OtherData)
	if err != nil {
		tb.Fatal(err)
	}
	mac := hmac.New(sha256.New, testSecret)
	mac.Write(append(covered, other...))
	if want := hex.EncodeToString(mac.Sum(nil)); want != ts.MAC {
		tb.Errorf("MAC is %s, should be %s", ts.MAC, want)
	}
}

func TestRFC8945_5_2_WhatIsWrongIsSaid(t *testing.T) {
	keys, _ := tsigKeys(t, "hmac-sha256")
	now := time.Now().Unix()
	shorten := func(to int) func([]byte) []byte {
		return func(wire []byte) []byte {
			// RDATA ends in MAC (32), ID, error, other length.
			macAt := len(wire) - 6 - 32
			binary.BigEndian.PutUint16(wire[macAt-2:], uint16(to))
			lengthAt := macAt - 10 - len("\x0bhmac-sha256\x00") - 2
			binary.BigEndian.PutUint16(wire[lengthAt:], binary.BigEndian.Uint16(wire[lengthAt:])-uint16(32-to))
			return append(wire[:macAt+to], wire[len(wire)-6:]...)
		}
	}
	for _, tc := range []struct {
		fact      string
		secret    []byte
		key       string
		algorithm string
		at        int64
		change    func([]byte) []byte
		rcode     int
		code      uint16
		signed    bool
	}{
		{fact: "right", at: now, signed: true},
		{fact: "right, another ID on the way", at: now, signed: true, change: func(w []byte) []byte { w[0] ^= 0xff; return w }},
		{fact: "unknown key", key: "other.", at: now, rcode: dns.RcodeNotAuth, code: dns.RcodeBadKey},
		{fact: "key of another algorithm", algorithm: dns.HmacSHA512, at: now, rcode: dns.RcodeNotAuth, code: dns.RcodeBadKey},
		{fact: "wrong secret", secret: []byte("guess"), at: now, rcode: dns.RcodeNotAuth, code: dns.RcodeBadSig},
		{fact: "changed message", at: now, rcode: dns.RcodeNotAuth, code: dns.RcodeBadSig, change: func(w []byte) []byte { w[3] ^= 0x10; return w }},
		{fact: "too old", at: now - 400, rcode: dns.RcodeNotAuth, code: dns.RcodeBadTime, signed: true},
		{fact: "from the future", at: now + 400, rcode: dns.RcodeNotAuth, code: dns.RcodeBadTime, signed: true},
		{fact: "truncated MAC", at: now, rcode: dns.RcodeNotAuth, code: dns.RcodeBadTrunc, signed: true, change: shorten(16)},
		{fact: "MAC truncated too far", at: now, rcode: dns.RcodeFormatError, change: shorten(15)},
	} {
		t.Run(tc.fact, func(t *testing.T) {
			if tc.secret == nil {
				tc.secret = testSecret
			}
			if tc.key == "" {
				tc.key = "transfer.key."
			}
			if tc.algorithm == "" {
				tc.algorithm = dns.HmacSHA256
			}
			s := testServer(t, Config{Source: memSource{"\x07example\x00": exampleView(t, 5)}, Keys: keys})
			query, mac := signed(t, tc.secret, tc.key, tc.algorithm, tc.at, tc.change)
			answer := askPacket(t, s, query)
			r := new(dns.Msg)
			if err := r.Unpack(answer); err != nil {
				t.Fatal(err)
			}
			if r.Rcode != tc.rcode || (len(r.Answer) > 0) != (tc.rcode == 0) {
				t.Fatalf("%v", r)
			}
			ts := r.IsTsig()
			if tc.rcode == dns.RcodeFormatError {
				if ts != nil {
					t.Errorf("%v", ts)
				}
				return
			}
			if ts == nil || ts.Error != tc.code || (ts.MACSize > 0) != tc.signed {
				t.Fatalf("%v", ts)
			}
			if tc.code == dns.RcodeBadTime && (ts.TimeSigned != uint64(tc.at) || ts.OtherLen != 6) {
				t.Errorf("%v", ts)
			}
			if tc.signed {
				checkMAC(t, answer, ts, mac)
			}
		})
	}
}

func TestTSIG_WeakAlgorithmsOnlyWhereAllowed(t *testing.T) {
	keys, _ := tsigKeys(t, "hmac-sha1")
	for _, weak := range []bool{false, true} {
		s := testServer(t, Config{Source: memSource{"\x07example\x00": exampleView(t, 5)}, Keys: keys, WeakTSIG: weak})
		query, _ := signed(t, testSecret, "transfer.key.", dns.HmacSHA1, time.Now().Unix(), nil)
		if got := askPacket(t, s, query)[3]&0xf == 0; got != weak {
			t.Errorf("allowed %v, answered %v", weak, got)
		}
	}
	if h, name := tsigAlgorithm("hmac-md5", true); h == nil || name != "\x08hmac-md5\x07sig-alg\x03reg\x03int\x00" {
		t.Errorf("hmac-md5 is %q", name)
	}
}

func TestTSIG_LongSignaturesStayWithinADatagram(t *testing.T) {
	keys, _ := tsigKeys(t, "hmac-sha512")
	view := ixfrView(t)
	s := testServer(t, Config{Source: memSource{"\x07example\x00": view}, Keys: keys})
	for serial := uint32(3); serial <= 7; serial++ {
		m := ixfrQuery(serial).SetTsig("transfer.key.", dns.HmacSHA512, 300, time.Now().Unix())
		wire, _, err := dns.TsigGenerate(m, base64.StdEncoding.EncodeToString(testSecret), "", false)
		if err != nil {
			t.Fatal(err)
		}
		if answer := askPacket(t, s, wire); len(answer) > 512 || answer[3]&0xf != 0 {
			t.Errorf("serial %d: %d bytes, header % x", serial, len(answer), answer[:12])
		}
	}
}

// hmacSHA256 is the MAC of a message with a secret in base64.
func hmacSHA256(secret string, msg []byte) ([]byte, error) {
	key, err := base64.StdEncoding.DecodeString(secret)
	if err != nil {
		return nil, err
	}
	mac := hmac.New(sha256.New, key)
	mac.Write(msg)
	return mac.Sum(nil), nil
}

// FuzzReply reads answers to a signed question: only the one that was signed
// is taken, the case of the key's name aside.
func FuzzReply(f *testing.F) {
	now := time.Unix(1_800_000_000, 0)
	key := &tsigKey{name: "\x08transfer\x03key\x00", algorithm: "\x0bhmac-sha256\x00", newHash: sha256.New, secret: testSecret}
	q := &query{name: exampleName, qtype: zone.TypeSOA, edns: true}
	asked, _ := q.pack(77, key, now)
	mac := hex.EncodeToString(asked[len(asked)-6-sha256.Size : len(asked)-6])
	m := new(dns.Msg)
	if err := m.Unpack(asked); err != nil {
		f.Fatal(err)
	}
	if m.IsTsig().MAC != mac {
		f.Fatalf("MAC %s, want %s", m.IsTsig().MAC, mac)
	}
	r := soaReply(f, m, "5").SetTsig("transfer.key.", dns.HmacSHA256, 300, now.Unix())
	right, _, err := dns.TsigGenerate(r, testSecret64, mac, false)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(right)
	f.Add(asked)
	f.Add(right[:len(right)-20])
	f.Add(bytes.ToUpper(right))
	refused, err := new(dns.Msg).SetRcode(m, dns.RcodeRefused).Pack()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(refused)
	f.Fuzz(func(t *testing.T, msg []byte) {
		_, v := q.pack(77, key, now)
		_, err := q.check(msg, 77, v, true, now)
		if taken := err == nil && v.finished() == nil; taken != bytes.EqualFold(msg, right) && (taken || bytes.Equal(msg, right)) {
			t.Errorf("% x: %v", msg, err)
		}
	})
}
