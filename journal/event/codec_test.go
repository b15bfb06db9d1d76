package event

import (
	"bytes"
	"encoding/json"
	"flag"
	"maps"
	"os"
	"path/filepath"
	"reflect"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
)

var update = flag.Bool("update", false, "write missing golden files")

const testZone ZoneID = "0123456789abcdef"

func hashOf(b byte) (h Hash) {
	for i := range h {
		h[i] = b
	}
	return h
}

func manifest() Manifest {
	return Manifest{
		Subject: "bulk.0123456789abcdef.c0ffee", Count: 2,
		Chunks: []Chunk{{hashOf(1), 7, 100, 786432}, {hashOf(2), 8, 3, 512}},
	}
}

// samples holds facts of every type, all members set.
func samples() map[string]Facts {
	floor := uint32(4294967295)
	key := Key{
		ID: "00112233aabbccdd", Role: "ksk", Algorithm: 13, Tag: 65535, DNSKEY: "AQEDDQ==",
		Keystore: "file", Reference: "example.+013+65535",
	}
	indirect := manifest()
	indirect.Chunks, indirect.Indirect, indirect.Count = nil, indirect.Chunks, 4097
	hook := &HookOutcome{Command: "check.sh", ExitCode: -1, TimedOut: true, DurationMS: 600000, Output: "slow\n", OutputBytes: 5}
	m := map[string]Facts{}
	for _, f := range []Facts{
		&BulkSwept{Chunks: 3, Bytes: 1 << 40, Until: 99},
		&JournalBackedUp{Size: 12, Hash: hashOf(1), Chunks: 7, Missing: 1, Place: "/backup/sluice"},
		&JournalContinued{
			Origin: "sluice/0011", Stream: "0011", Size: 12, Hash: hashOf(1), Root: hashOf(2),
			Key: "sluice/0011+12345678+AQID", Reason: "restored from a backup",
		},
		&JournalCosigned{Size: 12, Witness: "witness.example", Note: "log.example\n12\n"},
		&JournalCheckpointed{Size: 12, Root: hashOf(1), Zones: 3, ZonesRoot: hashOf(2), Note: "log.example\n12\n"},
		&ClockAccepted{Shown: 1701209600, Expected: 1700604800, Reason: "the time server was wrong"},
		&ClockDoubted{Shown: 1701209600, Expected: 1700604800, Reason: "168h0m0s after what was expected"},
		&InstanceFetched{Fetches: []Fetch{
			{Signed: 9, Serial: 7, Key: "transfer.example.", Address: "192.0.2.53", Transfer: "IXFR", Time: 1700000000},
			{Signed: 9, Serial: 7, Certificate: "ns2.example", Address: "2001:db8::53", TLS: true, Transfer: "AXFR", Time: 1700000001},
		}},
		&InstanceLoaded{
			Source: "192.0.2.1:53^tsig", Serial: 2026010100, Base: 12, Manifest: manifest(), ContentDigest: hashOf(3),
			RRsets: 10, Records: 20, Added: 5, Removed: 4, Stripped: map[string]uint64{"RRSIG": 2, "NSEC": 1},
			Notices: []string{"glue of \"ns.example.\" is unused"}, DurationMS: 17,
		},
		&InstancePublished{Signed: 9, Loaded: 8, Serial: 7, SignedDigest: hashOf(4)},
		&InstanceSigned{
			Loaded: 8, Serial: 7, Previous: 6, Base: 5, Manifest: indirect, ContentDigest: hashOf(3), SignedDigest: hashOf(4),
			Keys: []string{key.ID}, Signers: []string{key.ID}, Denial: "nsec3-opt-out", Params: "nsec3 iterations=0", Records: 40, Signatures: 10,
			Made: 2, Reused: 8, Verified: 2, Inception: 1700000000, Expiration: 1701209600, Earliest: 1700604800, DurationMS: 3,
		},
		&InstanceAbandoned{Stage: StageLoaded, Instance: 8, Reason: "rejected by hook 1"},
		&KeyActivated{IDs: []string{key.ID}},
		&KeyBackedUp{IDs: []string{key.ID}},
		&KeyDestroyed{IDs: []string{key.ID}},
		&KeyGenerated{Keys: []Key{key}},
		&KeyImported{Keys: []Key{key}, From: "pkcs11:token=sluice"},
		&KeyIntroduced{IDs: []string{key.ID}},
		&KeyProved{IDs: []string{key.ID}, Worker: "ns-west", NKey: "UDXU4RCSJNZOIQHZNWXHXORDPRTGNJAHAHFRGZNEEJCPQTT2M7NLCNF4"},
		&KeyPublished{IDs: []string{key.ID}},
		&KeyRemoved{IDs: []string{key.ID}},
		&KeyRetired{IDs: []string{key.ID}},
		&KeyWithdrawn{IDs: []string{key.ID}},
		&DSObserved{
			Sets: []DSSet{
				{DS: []DS{{Tag: 65535, Algorithm: 13, DigestType: 2, Digest: "00ff", Key: key.ID}}, TTL: 86400}, {TTL: 3600},
			},
			Servers: 4, Unreachable: []string{"ns2.parent.example."}, Time: 1700000000,
		},
		&CDSChanged{CDS: true, Reason: "the policy says always"},
		&DSNotified{
			Request: 6, None: true, Owner: "example._dsync.parent.example.", Target: "agent.parent.example.:5359", Validated: true,
			Server: "192.0.2.7:5359", Rcode: "REFUSED", Error: "the server answered REFUSED",
		},
		&DSPushed{
			Request: 6, Server: "192.0.2.8:53^update.example.", Zone: "parent.example.", Rcode: "NOTAUTH",
			Added:   []DS{{Tag: 65535, Algorithm: 13, DigestType: 2, Digest: "00ff", Key: key.ID}},
			Removed: []DS{{Tag: 1, Algorithm: 13, DigestType: 2, Digest: "01ff", Key: "8899aabbccddeeff"}},
			Kept:    []DS{{Tag: 2, Algorithm: 8, DigestType: 2, Digest: "02ff"}}, Error: "the server answered NOTAUTH",
		},
		&HookRan{Request: 6, Event: "ds-ready", Number: 1, Error: "exit code 1", Hook: *hook},
		&DSSubmitted{IDs: []string{key.ID}, CDS: true},
		&DSWithdrawn{CDS: true},
		&RolloverAborted{Rollover: 4, Step: 2, Name: "change-ds", Reason: "the new key's HSM is gone"},
		&RolloverAdvanced{
			Rollover: 4, Step: 1, Name: "publish", Reported: "dnskey-seen", Seen: 1700000000,
			Wait: &Wait{
				Formula: "Ipub = Dprp + TTLkey", Seconds: 8100, Earliest: 1700008100,
				Inputs: []WaitInput{{"Dprp", 4500, "SOA refresh + retry"}, {"TTLkey", 3600, "DNSKEY TTL"}},
			},
			Lost: "ns1.example. does not show it any more",
		},
		&RolloverCompleted{Rollover: 4},
		&RolloverStarted{
			Kind: "ksk", Method: "double-ksk", Old: []string{key.ID}, New: []string{"8899aabbccddeeff"}, Reason: "asked for", Emergency: true, Start: 1700000000,
		},
		&LoadFailed{Source: "zones/example.zone", Reason: "line 3: bad TTL \u2028 \x01 <&>", Errors: []string{"é", "😀"}, Total: 2},
		&MaintenanceChanged{Enabled: true, Reason: "moving the source"},
		&PolicyBound{
			Zone: "example.", Source: "zones/example.zone", Policy: "default", SHA256: hashOf(5),
			Text: "[signer]\nalgorithm = 13\n", SerialFloor: &floor,
		},
		&ReviewApproved{
			Stage: StageSigned, Instance: 9, Digest: hashOf(4), Checker: "hook 1", Passed: true, Carried: 7, Reason: "looks good", Hook: hook,
		},
		&ReviewOverridden{Stage: StageSigned, Instance: 9, Digest: hashOf(4), Reason: "the hook is wrong"},
		&ReviewRejected{Stage: StageLoaded, Instance: 8, Digest: hashOf(3), Checker: "hook 1", Reason: "exit code 1", Hook: hook},
		&ReviewRequested{Stage: StageLoaded, Instance: 8, Digest: hashOf(3), Checks: []string{"min-records"}},
		&SignFailed{Loaded: 8, Stage: "verify", Reason: "signature does not verify", Errors: []string{"example. SOA"}},
		&SerialRaised{Floor: 2026112299, Reason: "zone serial"},
		&KeystoreAdded{Name: "hsm", Module: "/usr/lib/softhsm/libsofthsm2.so", Token: "zones", Serial: "6b7a0c1d2e3f4a5b", Sessions: 4, Timeout: 30000},
		&KeystoreRemoved{Name: "hsm"},
		&SignalPushed{Keys: []string{key.ID}, Owners: []string{"_dsboot.example._signal.ns1.example.net."}, Error: "192.0.2.8:53: REFUSED"},
		&TSIGAdded{Name: "transfer.example.", Algorithm: "hmac-sha256"},
		&TSIGRemoved{Name: "transfer.example."},
		&WorkerGranted{Worker: "w1", WorkerRole: "sign", Epoch: 3},
		&WorkerQuarantined{WorkerRole: "sign", Command: "sign", Tries: 5, Error: "index out of range"},
		&ZoneAdded{Name: "example.", ID: testZone, Source: "file", Policy: "default", SerialFloor: &floor},
		&ZoneChanged{Source: "192.0.2.2"},
		&ZoneHalted{Stage: StageLoaded, Instance: 8, Reason: "rejected by hook 1"},
		&ZoneReset{Reason: "seen"},
		&ZoneRemoved{Name: "example.", ID: testZone, Force: true},
	} {
		m[f.EventType()] = f
	}
	for _, f := range slices.Concat(lifeSamples(), workerSamples(), holdSamples(), contentsSamples(), accessSamples(), catalogSamples()) {
		m[f.EventType()] = f
	}
	for _, f := range retentionSamples() {
		m[f.EventType()] = f
	}
	return m
}

func sample(f Facts) Event {
	e := New(time.Date(2026, 1, 2, 3, 4, 5, 678901234, time.UTC), testZone, Actor{Name: "op", Door: "cli"}, f)
	switch f.(type) {
	case *ZoneAdded, *TSIGAdded, *TSIGRemoved, *KeystoreAdded, *KeystoreRemoved, *JournalCheckpointed, *JournalCosigned,
		*JournalBackedUp, *JournalContinued, *JournalExported, *TSIGExported, *WorkerEnrolled, *WorkerRemoved,
		*CatalogAdded, *CatalogChanged, *CatalogRemoved:
		e.Zone = Instance
	}
	e.Version, e.N, e.Prev, e.Cause, e.Epoch, e.MustUnderstand = 1, 2, hashOf(0xab), 11, 3, true
	e.Sealed = map[string]Hash{"facts.source": hashOf(9)}
	return e
}

// variants holds further facts of some types, with the members that came
// after their first golden file; the name of their own begins with the type.
func variants() map[string]Facts {
	m := lifeVariants()
	maps.Copy(m, holdVariants())
	maps.Copy(m, contentsVariants())
	maps.Copy(m, reasonVariants())
	maps.Copy(m, catalogVariants())
	maps.Copy(m, map[string]Facts{
		"keystore.added-kmip": &KeystoreAdded{
			Name: "kms", Address: "kmip.example.net:5696", ServerName: "kmip", ServerPin: "sha256:AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=",
		},
		"sign.failed-worker": &SignFailed{Loaded: 8, Stage: "verify", Reason: "signature does not verify", WorkerRole: "review"},
		"instance.loaded-transfer": &InstanceLoaded{
			Source: "192.0.2.1:53^tsig", Serial: 7, Manifest: manifest(), ContentDigest: hashOf(3), RRsets: 10, Records: 20,
			Peer: "192.0.2.1:53^tsig.", Transfer: "IXFR", Bytes: 1 << 33,
		},
		"instance.loaded-pass-through": &InstanceLoaded{
			Source: "192.0.2.1:53", Serial: 7, Manifest: manifest(), ContentDigest: hashOf(3), RRsets: 10, Records: 20,
			PassThrough: true, Signatures: 5, Earliest: 1700604800, ZONEMD: "verified",
		},
		"instance.signed-mode": &InstanceSigned{
			Loaded: 8, Serial: 7, Mode: "unsigned", Manifest: manifest(), ContentDigest: hashOf(3), SignedDigest: hashOf(4),
		},
		"instance.signed-cds": &InstanceSigned{
			Loaded: 8, Serial: 7, Manifest: manifest(), ContentDigest: hashOf(3), SignedDigest: hashOf(4), CDS: []string{CDSDelete},
		},
		"instance.signed-exchange": &InstanceSigned{
			Loaded: 8, Serial: 7, Manifest: manifest(), ContentDigest: hashOf(3), SignedDigest: hashOf(4),
			SignedBy: []SignedBy{{Keys: []string{"00112233aabbccdd"}, RRsets: 7}, {Keys: []string{"00112233aabbccdd", "ffeeddccbbaa9988"}, RRsets: 1 << 33}},
			Exchange: &Exchange{Since: 1700604800, Until: 1701604800, From: 1701704800, To: 1702604800, Slices: 28, Reached: 1701804800},
		},
		"instance.signed-parts": &InstanceSigned{
			Loaded: 8, Serial: 7, Manifest: manifest(), ContentDigest: hashOf(3), SignedDigest: hashOf(4),
			Parts: []SignedParts{{Worker: "main", Parts: 5, Signatures: 1 << 33}, {Worker: "w1", Parts: 2, Signatures: 7}},
		},
		"instance.published-keep": &InstancePublished{
			Signed: 9, Loaded: 8, Serial: 7, SignedDigest: hashOf(4), Keep: &DiffLimits{Steps: 3, Bytes: 1 << 30},
		},
		"key.generated-ahead": &KeyGenerated{Keys: []Key{{ID: "00112233aabbccdd", Role: "zsk", Algorithm: 13, Tag: 1, DNSKEY: "AQEDDQ=="}}, Ahead: true},
		"key.imported-foreign": &KeyImported{
			Keys: []Key{{ID: "00112233aabbccdd", Role: "zsk", Algorithm: 13, Tag: 1, DNSKEY: "AQEDDQ=="}}, From: "other.key", Foreign: true,
		},
		"tsig.added-worker": &TSIGAdded{Name: "transfer.example.", Algorithm: "hmac-sha256", Worker: "main"},
		"zone.added-public": &ZoneAdded{
			Name: "example.", ID: testZone, Source: "file", Policy: "default",
			Public: []Key{{ID: "00112233aabbccdd", Role: "ksk", Algorithm: 13, Tag: 1, DNSKEY: "AQEDDQ=="}},
		},
		"zone.added-import": &ZoneAdded{
			Name: "example.", ID: testZone, Source: "file", Policy: "default",
			Import: []Key{{ID: "00112233aabbccdd", Role: "csk", Algorithm: 13, Tag: 1, DNSKEY: "AQEDDQ==", Keystore: "file", Reference: "r"}},
		},
	})
	return m
}

// Golden files are never edited: a line once written must decode, and encode
// to the same bytes, for ever.
func TestEncode_GoldenFiles(t *testing.T) {
	all := samples()
	for _, name := range Types() {
		if all[name] == nil {
			t.Errorf("%s has no sample", name)
		}
	}
	if len(all) != len(Types()) {
		t.Errorf("%d samples for %d types", len(all), len(Types()))
	}
	maps.Copy(all, variants())
	for _, name := range slices.Sorted(maps.Keys(all)) {
		t.Run(name, func(t *testing.T) {
			want := sample(all[name])
			line, err := Encode(&want)
			if err != nil {
				t.Fatal(err)
			}
			path := filepath.Join("testdata", "golden", name+".json")
			golden, err := os.ReadFile(path)
			if os.IsNotExist(err) && *update {
				golden, err = line, os.WriteFile(path, line, 0o600)
			}
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(string(golden), string(line)); diff != "" {
				t.Errorf("encoding changed (-golden +now):\n%s", diff)
			}
			got, err := Decode(golden)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(want, got); diff != "" {
				t.Errorf("decoded (-want +got):\n%s", diff)
			}
		})
	}
}

// Each member of each type stands in some golden file, with a value that is
// not its zero.
func TestGolden_EveryMemberIsCovered(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil {
		t.Fatal(err)
	}
	seen := map[string]map[string]bool{}
	for _, f := range files {
		line, err := os.ReadFile(f)
		if err != nil {
			t.Fatal(err)
		}
		var e struct {
			Type  string
			Facts map[string]any
		}
		if err := json.Unmarshal(line, &e); err != nil {
			t.Fatal(err)
		}
		if seen[e.Type] == nil {
			seen[e.Type] = map[string]bool{}
		}
		for member := range e.Facts {
			seen[e.Type][member] = true
		}
	}
	for _, name := range Types() {
		for f := range reflect.TypeOf(NewFacts(name)).Elem().Fields() {
			member, _, _ := strings.Cut(f.Tag.Get("json"), ",")
			if !seen[name][member] {
				t.Errorf("%s: no golden file has %s", name, member)
			}
		}
	}
}

func TestGolden_EveryFileIsARegisteredType(t *testing.T) {
	files, err := filepath.Glob("testdata/golden/*.json")
	if err != nil || len(files) != len(Types())+len(variants()) {
		t.Fatalf("%d golden files for %d types and %d variants, %v", len(files), len(Types()), len(variants()), err)
	}
	for _, f := range files {
		name := strings.TrimSuffix(filepath.Base(f), ".json")
		wire, _, _ := strings.Cut(name, "-")
		if NewFacts(name) == nil && NewFacts(wire) == nil {
			t.Errorf("%s is of no registered type", f)
		}
	}
}

const minimal = `{"actor":{"door":"cli","name":"op"},"facts":{"source":"f"},"n":1,` +
	`"time":"2026-01-02T03:04:05.000000Z","type":"zone.changed","v":1,"zone":"_"}`

func TestEncode_OmitsWhatIsZero(t *testing.T) {
	e := New(time.Date(2026, 1, 2, 3, 4, 5, 999, time.UTC), Instance, Actor{Name: "op", Door: "cli"}, &ZoneChanged{Source: "f"})
	e.Version, e.N = 1, 1
	line, err := Encode(&e)
	if err != nil || string(line) != minimal {
		t.Errorf("encoded %s, %v, want %s", line, err, minimal)
	}
	nilIDs := sample(&KeyRetired{})
	line, err = Encode(&nilIDs)
	if err != nil || !bytes.Contains(line, []byte(`"facts":{}`)) {
		t.Errorf("null is not omitted: %s, %v", line, err)
	}
}

func TestEncode_RefusesBadEvents(t *testing.T) {
	for name, spoil := range map[string]func(*Event){
		"no version":             func(e *Event) { e.Version = 0 },
		"n 0":                    func(e *Event) { e.N = 0 },
		"prev at n 1":            func(e *Event) { e.N = 1 },
		"no prev at n 2":         func(e *Event) { e.Prev = Hash{} },
		"zone id upper case":     func(e *Event) { e.Zone = "0123456789ABCDEF" },
		"zone id short":          func(e *Event) { e.Zone = "0123" },
		"no zone id":             func(e *Event) { e.Zone = "" },
		"nanoseconds":            func(e *Event) { e.Time = e.Time.Add(1) },
		"local time":             func(e *Event) { e.Time = e.Time.In(time.FixedZone("", 3600)) },
		"year 10000":             func(e *Event) { e.Time = e.Time.AddDate(9000, 0, 0) },
		"zero time":              func(e *Event) { e.Time = time.Time{} },
		"door":                   func(e *Event) { e.Actor.Door = "window" },
		"no actor":               func(e *Event) { e.Actor.Name = "" },
		"type of other facts":    func(e *Event) { e.Type = "zone.added" },
		"type without dot":       func(e *Event) { e.Type, e.Facts, e.Raw = "zone", nil, []byte("{}") },
		"type as wildcard":       func(e *Event) { e.Type, e.Facts, e.Raw = "*.x", nil, []byte("{}") },
		"no facts":               func(e *Event) { e.Facts = nil },
		"raw facts, known type":  func(e *Event) { e.Facts, e.Raw = nil, []byte("{}") },
		"raw facts are an array": func(e *Event) { e.Type, e.Facts, e.Raw = "zone.moved", nil, []byte("[]") },
		"raw facts hold a float": func(e *Event) { e.Type, e.Facts, e.Raw = "zone.moved", nil, []byte(`{"a":1.5}`) },
		"raw facts twice":        func(e *Event) { e.Type, e.Facts, e.Raw = "zone.moved", nil, []byte(`{"a":1,"a":2}`) },
		"raw facts, then more":   func(e *Event) { e.Type, e.Facts, e.Raw = "zone.moved", nil, []byte(`{}{}`) },
		"null in an array":       func(e *Event) { e.Type, e.Facts, e.Raw = "zone.moved", nil, []byte(`{"a":[null]}`) },
		"integer beyond 2^53":    func(e *Event) { e.Cause = 1<<53 + 1 },
		"facts beyond 2^53":      func(e *Event) { e.Type, e.Facts = "bulk.swept", &BulkSwept{Bytes: 1 << 63} },
		"too long":               func(e *Event) { e.Facts = &ZoneChanged{Source: strings.Repeat("x", MaxLine)} },
	} {
		e := sample(&ZoneChanged{Source: "f"})
		if _, err := Encode(&e); err != nil {
			t.Fatal(err)
		}
		spoil(&e)
		if line, err := Encode(&e); err == nil {
			t.Errorf("%s: encoded as %s", name, line)
		}
	}
}

func TestDecode_RefusesWhatEncodeNeverWrites(t *testing.T) {
	if _, err := Decode([]byte(minimal)); err != nil {
		t.Fatal(err)
	}
	for name, swap := range map[string][2]string{
		"space":               {`"n":1`, `"n": 1`},
		"float":               {`"n":1`, `"n":1.0`},
		"exponent":            {`"n":1`, `"n":1e0`},
		"negative zero":       {`"n":1,`, `"cause":-0,"n":1,`},
		"explicit zero":       {`"facts"`, `"cause":0,"facts"`},
		"explicit null":       {`"n":1`, `"n":1,"prev":null`},
		"unknown member":      {`"zone":"_"`, `"zone":"_","zoo":1`},
		"member twice":        {`"n":1`, `"n":1,"n":1`},
		"other case":          {`"n":1`, `"N":1`},
		"escaped solidus":     {`"f"`, `"\/"`},
		"escaped letter":      {`"f"`, `"\u0066"`},
		"upper case escape":   {`"f"`, `"\u001F"`},
		"not UTF-8":           {`"f"`, "\"\xff\""},
		"lone surrogate":      {`"f"`, `"\ud800"`},
		"order":               {`"v":1,"zone":"_"`, `"zone":"_","v":1`},
		"time without micros": {`05.000000Z`, `05Z`},
		"time with offset":    {`05.000000Z`, `05.000000+00:00`},
		"hour 24":             {`T03`, `T24`},
		"version":             {`"v":1`, `"v":2`},
		"end missing":         {`"_"}`, `"_"`},
		"trailing byte":       {`"_"}`, `"_"} `},
		"facts are a string":  {`{"source":"f"}`, `"f"`},
		"facts are null":      {`{"source":"f"}`, `null`},
	} {
		line := strings.Replace(minimal, swap[0], swap[1], 1)
		if line == minimal {
			t.Fatalf("%s: nothing replaced", name)
		}
		if _, err := Decode([]byte(line)); err == nil {
			t.Errorf("%s: decoded %s", name, line)
		}
	}
}

func TestDecode_KeepsUnknownFacts(t *testing.T) {
	unknown := strings.Replace(strings.Replace(minimal, "zone.changed", "zone.moved", 1), `{"source":"f"}`, `{"a":[1,true],"b":{"c":"d"}}`, 1)
	e, err := Decode([]byte(unknown))
	if err != nil {
		t.Fatal(err)
	}
	if e.Facts != nil || string(e.Raw) != `{"a":[1,true],"b":{"c":"d"}}` || Subject(&e) != "ev._.zone" {
		t.Errorf("decoded %+v", e)
	}
	newer := strings.Replace(minimal, `{"source":"f"}`, `{"colour":"red","source":"f"}`, 1)
	e, err = Decode([]byte(newer))
	if err != nil {
		t.Fatal(err)
	}
	if diff := cmp.Diff(&ZoneChanged{Source: "f"}, e.Facts); diff != "" {
		t.Errorf("facts of a newer program (-want +got):\n%s", diff)
	}
	again, err := Encode(&e)
	if err != nil || string(again) != newer {
		t.Errorf("encoded again as %s, %v", again, err)
	}
}

// RFC 8785, 3.2.3: "Property name strings to be sorted are formatted as
// arrays of UTF-16 code units."
func TestRFC8785_3_2_3_MemberOrder(t *testing.T) {
	in := `{"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7}`
	want := "{\"\\r\":2,\"1\":4,\"\u0080\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\ufb33\":3}"
	got, err := canonical(nil, []byte(in))
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

// RFC 8785, 3.2.2.2: the control characters with short forms, lower-case hex
// for the others, everything else as is.
func TestRFC8785_3_2_2_2_Strings(t *testing.T) {
	in := `"\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/\b\t\f\r\u007f<>&\u2028"`
	want := "\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\\b\\t\\f\\r\u007f<>&\u2028\""
	got, err := canonical(nil, []byte(in))
	if err != nil || string(got) != want {
		t.Errorf("got %s, %v, want %s", got, err, want)
	}
}

func TestCanonical_RefusesDeepNesting(t *testing.T) {
	deep := strings.Repeat("[", 1000) + strings.Repeat("]", 1000)
	if _, err := canonical(nil, []byte(deep)); err == nil {
		t.Error("1,000 levels were taken")
	}
}

func TestHash_TextForm(t *testing.T) {
	h := hashOf(0xa5)
	text, err := json.Marshal(h)
	if err != nil || string(text) != `"`+strings.Repeat("a5", 32)+`"` {
		t.Fatalf("%s, %v", text, err)
	}
	for _, bad := range []string{"", "a5", strings.Repeat("zz", 32)} {
		if err := h.UnmarshalText([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
}

// RFC 6962, 2.1: the leaf hash is SHA-256(0x00 || entry).
func TestRFC6962_2_1_RecordHash(t *testing.T) {
	const want = "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d"
	if got := RecordHash(nil).String(); got != want {
		t.Errorf("hash of the empty entry is %s, want %s", got, want)
	}
}

func TestChunkList_RoundTrip(t *testing.T) {
	list := make([]Chunk, MaxListed)
	for i := range list {
		list[i] = Chunk{hashOf(byte(i)), 1<<53 - 1, 1<<53 - 1, 1<<53 - 1}
	}
	raw, err := EncodeChunkList(list)
	if err != nil || len(raw) > 768<<10 {
		t.Fatalf("%d bytes, %v", len(raw), err)
	}
	got, err := DecodeChunkList(raw)
	if diff := cmp.Diff(list, got); diff != "" || err != nil {
		t.Errorf("%v (-want +got):\n%s", err, diff)
	}
	for _, bad := range []string{"", "[]", "{}", "[1]", `[{"seq":1}] x`, `[{"sq":1}]`} {
		if _, err := DecodeChunkList([]byte(bad)); err == nil {
			t.Errorf("%q was taken", bad)
		}
	}
	if _, err := EncodeChunkList(append(list, list[0])); err == nil {
		t.Error("more than MaxListed were taken")
	}
}

func FuzzDecode(f *testing.F) {
	for _, facts := range samples() {
		e := sample(facts)
		line, err := Encode(&e)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(line)
	}
	f.Add([]byte(minimal))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := Decode(line)
		if err != nil {
			return
		}
		again, err := Encode(&e)
		if err != nil || !bytes.Equal(again, line) {
			t.Fatalf("decoded, but encodes as %q, %v", again, err)
		}
		if s := Subject(&e); strings.ContainsAny(s, "*> \t\r\n") || strings.Count(s, ".") != 2 {
			t.Fatalf("subject %q", s)
		}
	})
}

func FuzzDecodeChunkList(f *testing.F) {
	raw, err := EncodeChunkList(manifest().Chunks)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Fuzz(func(t *testing.T, raw []byte) {
		list, err := DecodeChunkList(raw)
		if err == nil && (len(list) == 0 || len(list) > MaxListed) {
			t.Fatalf("%d entries", len(list))
		}
	})
}

func BenchmarkEncode(b *testing.B) {
	e := sample(samples()["instance.signed"])
	for b.Loop() {
		if _, err := Encode(&e); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkDecode(b *testing.B) {
	e := sample(samples()["instance.signed"])
	line, err := Encode(&e)
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := Decode(line); err != nil {
			b.Fatal(err)
		}
	}
}
