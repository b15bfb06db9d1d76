package event

import (
	"strings"
	"testing"
)

// contentsSamples are those of what was given out.
func contentsSamples() []Facts {
	return []Facts{
		&JournalExported{
			Zones: []string{"example."}, Since: 1700000000, Until: 1700604800, Chunks: true, Dropped: []string{"actor", "facts.reason"},
		},
		&TSIGExported{Name: "transfer.example."},
		&UpdateAccepted{
			Updates: []AcceptedUpdate{
				{Address: "192.0.2.7", TLS: true, Certificate: "host.example", Prerequisites: 1, Added: 2, Removed: 1},
				{Address: "2001:db8::7", Added: 1},
			},
			Manifest: manifest(),
		},
	}
}

// contentsVariants hold what ties facts to those who made them.
func contentsVariants() map[string]Facts {
	const id, software = "00112233aabbccdd", "v1.2.3/0123456789abcdef"
	gate := &Gate{RRsets: 30, Signatures: 20, Verified: 10}
	return map[string]Facts{
		"instance.loaded-peer": &InstanceLoaded{
			Source: "tls://192.0.2.1:853^tsig#ns1.example", Serial: 7, Manifest: manifest(), ContentDigest: hashOf(3), RRsets: 10, Records: 20,
			Peer: "tls://192.0.2.1:853^tsig.#ns1.example", Transfer: "AXFR", Bytes: 1 << 33, Software: software,
			PeerIdentity: &PeerIdentity{
				Address: "192.0.2.1", Key: "tsig.", Algorithm: "hmac-sha256",
				Pin: "sha256:AQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQEBAQE=", Certificate: hashOf(1).String(), Name: "ns1.example",
			},
		},
		"instance.loaded-update": &InstanceLoaded{
			Source: "/srv/zones/example", Serial: 8, Base: 8, Manifest: manifest(), ContentDigest: hashOf(3), RRsets: 10, Records: 20,
			Added: 1, Transfer: ByUpdate, Updates: 3, UpdatesTo: 12,
		},
		"instance.signed-counts": &InstanceSigned{
			Loaded: 8, Serial: 7, Manifest: manifest(), ContentDigest: hashOf(3), SignedDigest: hashOf(4), Made: 5, Reused: 35,
			NewSets: 4, Dropped: 3, DenialChanged: 2, Software: software,
			Parts: []SignedParts{{Worker: "main", Parts: 5, Signatures: 4}, {Worker: "w1", Parts: 2, Signatures: 1, Software: "v1.2.2/fedcba9876543210"}},
		},
		"instance.published-software": &InstancePublished{Signed: 9, Loaded: 8, Serial: 7, SignedDigest: hashOf(4), Software: software, Gate: gate},
		"review.requested-gate":       &ReviewRequested{Stage: StageSigned, Instance: 9, Digest: hashOf(4), Checks: []string{"egress gate"}, Gate: gate},
		"sign.failed-faults":          &SignFailed{Loaded: 8, Stage: "verify", Reason: "s9 failed at the egress gate with 30 faults", Errors: []string{"example. SOA"}, Faults: 30},
		"key.activated-lives":         &KeyActivated{IDs: []string{id}, Lives: []PlannedLife{{ID: id, Seconds: 7776000}}},
		"review.rejected-output": &ReviewRejected{
			Stage: StageLoaded, Instance: 8, Digest: hashOf(3), Checker: "hook 1", Reason: "exit code 1: bad",
			Hook: &HookOutcome{
				Command: "/usr/local/bin/check --strict", ExitCode: 1, DurationMS: 6, Output: "bad\n", OutputBytes: 4,
				OutputSHA256: hashOf(6).String(), Programs: []ProgramFile{{Path: "/usr/local/bin/check", SHA256: hashOf(7)}},
			},
		},
	}
}

// The role of an actor is a member of its own, absent where there is none.
func TestEncode_RoleOfTheActor(t *testing.T) {
	e := sample(&ZoneReset{Reason: "seen"})
	bare, err := Encode(&e)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(bare), `"actor":{"door":"cli","name":"op"}`) {
		t.Errorf("without a role: %s", bare)
	}
	e.Actor = Actor{Name: "op", Door: "web", Role: "operator"}
	line, err := Encode(&e)
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(line), `"actor":{"api_role":"operator","door":"web","name":"op"}`) {
		t.Errorf("with a role: %s", line)
	}
	got, err := Decode(line)
	if err != nil || got.Actor != e.Actor {
		t.Errorf("decoded actor %+v, %v, want %+v", got.Actor, err, e.Actor)
	}
}

func TestSoftware_NamesVersionAndBuild(t *testing.T) {
	if got, want := Software("v1.2.3", hashOf(0xab)), "v1.2.3/abababababababab"; got != want {
		t.Errorf("software %s, want %s", got, want)
	}
}

// Where the output of a hook is sealed, its hash has to be as well: it would let
// a short one be found by trying.
func TestSeal_TakesTheHashOfAnOutput(t *testing.T) {
	e := sample(contentsVariants()["review.rejected-output"])
	e.Sealed = nil
	if err := Seal(&e, []string{"facts.hook.output", "facts.hook.output_sha256"}, fixedSalt); err != nil {
		t.Fatal(err)
	}
	_, line, err := EncodeMessage(&e)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(line), hashOf(6).String()) {
		t.Errorf("the public line has the hash: %s", line)
	}
	shown := Open(e, e.Values).Facts.(*ReviewRejected)
	if shown.Hook.OutputSHA256 != hashOf(6).String() || shown.Hook.Output != "bad\n" {
		t.Errorf("opened %+v", shown.Hook)
	}
}
