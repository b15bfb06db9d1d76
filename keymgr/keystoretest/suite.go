// Package keystoretest is the suite that every keystore passes.
package keystoretest

import (
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/signer"
)

const zoneName = "example.com."

// Open opens the same keystore at every call: what one call stored, the next
// one finds. The first call of a test finds it empty.
type Open func(t *testing.T) keymgr.Keystore

// Run runs the suite. fresh makes a new place for keys and gives back how to
// open it. lacks lists the algorithms that the keystore may lack: P-256 is not
// among them.
func Run(t *testing.T, fresh func(t *testing.T) Open, lacks ...uint8) {
	RunWith(t, fresh, Main{dns.ECDSAP256SHA256, 0}, lacks...)
}

// Main is the kind of key that most tests use.
type Main struct {
	Algorithm uint8
	Bits      int // of RSA
}

func (m Main) spec(role keymgr.Role) keymgr.Spec {
	return keymgr.Spec{Zone: zoneName, Role: role, Algorithm: m.Algorithm, Bits: m.Bits}
}

func (m Main) generate(t *testing.T, ks keymgr.Keystore, role keymgr.Role) event.Key {
	t.Helper()
	return generate(t, ks, m.spec(role))
}

// RunWith runs the suite for a keystore that may lack P-256.
func RunWith(t *testing.T, fresh func(t *testing.T) Open, m Main, lacks ...uint8) {
	t.Run("EveryAlgorithmSignsAndVerifies", func(t *testing.T) { everyAlgorithm(t, fresh(t), lacks) })
	t.Run("BatchesAtATime", func(t *testing.T) { batches(t, fresh(t), m) })
	t.Run("RolesSetFlags", func(t *testing.T) { roles(t, fresh(t), m) })
	t.Run("KeysSurviveReopening", func(t *testing.T) { reopen(t, fresh(t), m) })
	t.Run("ConcurrentUse", func(t *testing.T) { concurrent(t, fresh(t), m) })
	t.Run("MissingKeyIsErrNoKey", func(t *testing.T) { missing(t, fresh(t), m) })
	t.Run("RemovedKeyIsGone", func(t *testing.T) { remove(t, fresh(t), m) })
	t.Run("TakenTagsAreAvoided", func(t *testing.T) { avoid(t, fresh(t), m) })
	t.Run("BadSpecsAreErrors", func(t *testing.T) { badSpecs(t, fresh(t)) })
	t.Run("CancelledContextStops", func(t *testing.T) { cancelled(t, fresh(t), m) })
	t.Run("ProveFindsAnotherKey", func(t *testing.T) { prove(t, fresh(t), m, lacks) })
}

func generate(t *testing.T, ks keymgr.Keystore, spec keymgr.Spec) event.Key {
	t.Helper()
	key, err := ks.Generate(t.Context(), spec, nil)
	if err != nil {
		t.Fatalf("generate %s of algorithm %d: %v", spec.Role, spec.Algorithm, err)
	}
	return key
}

// verifyDigests checks what the signer of a key makes, alone and in batches.
func verifyDigests(t *testing.T, ks keymgr.Keystore, key event.Key) {
	t.Helper()
	rdata, err := keymgr.RData(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ks.Signer(t.Context(), key.Reference)
	if err != nil {
		t.Fatal(err)
	}
	message := []byte("message of " + key.ID)
	sig, err := keymgr.Sign(s, key.Algorithm, message)
	if err != nil {
		t.Fatal(err)
	}
	if err := keymgr.Verify(rdata, message, sig); err != nil {
		t.Errorf("algorithm %d: %v", key.Algorithm, err)
	}
	if err := keymgr.Verify(rdata, append(message, '!'), sig); err == nil {
		t.Errorf("algorithm %d: a signature verifies another message", key.Algorithm)
	}
	if batch, ok := s.(signer.BatchSigner); ok {
		verifyBatch(t, batch, rdata)
	}
	if whole, ok := s.(signer.MessageSigner); ok {
		verifyMessages(t, whole, key, rdata, 20)
	}
}

// verifyMessages has a key sign some messages at a time.
func verifyMessages(t *testing.T, s signer.MessageSigner, key event.Key, rdata []byte, count int) {
	t.Helper()
	var texts []byte
	var ends []int
	for i := range count {
		texts = fmt.Appendf(texts, "message %d of %d, signed as it is", i, count)
		ends = append(ends, len(texts))
	}
	hash, _ := keymgr.Hash(key.Algorithm)
	sigs, err := s.SignMessages([]byte("before"), texts, ends, hash)
	if err != nil {
		t.Errorf("%d messages: %v", count, err)
		return
	}
	if string(sigs[:6]) != "before" || count > 0 && (len(sigs)-6)%count != 0 {
		t.Errorf("%d messages give %d bytes", count, len(sigs))
		return
	}
	size, start := 0, 0
	if count > 0 {
		size = (len(sigs) - 6) / count
	}
	for i, end := range ends {
		if err := keymgr.Verify(rdata, texts[start:end], sigs[6+i*size:6+(i+1)*size]); err != nil {
			t.Errorf("signature %d of %d messages: %v", i, count, err)
		}
		start = end
	}
}

func verifyBatch(t *testing.T, s signer.BatchSigner, rdata []byte) {
	t.Helper()
	const count = 20
	var digests []byte
	message := func(i int) []byte { return fmt.Appendf(nil, "message %d", i) }
	for i := range count {
		sum := sha256.Sum256(message(i))
		digests = append(digests, sum[:]...)
	}
	sigs, err := s.SignBatch(nil, digests)
	if err != nil {
		t.Fatal(err)
	}
	if len(sigs) != 64*count {
		t.Fatalf("SignBatch of %d digests makes %d bytes", count, len(sigs))
	}
	for i := range count {
		if err := keymgr.Verify(rdata, message(i), sigs[64*i:64*i+64]); err != nil {
			t.Errorf("signature %d of a batch: %v", i, err)
		}
	}
}

func everyAlgorithm(t *testing.T, open Open, lacks []uint8) {
	ks := open(t)
	for _, algorithm := range []uint8{
		dns.RSASHA256, dns.RSASHA512, dns.ECDSAP256SHA256, dns.ECDSAP384SHA384, dns.ED25519, dns.ED448,
	} {
		if slices.Contains(lacks, algorithm) {
			continue
		}
		t.Run(dns.AlgorithmToString[algorithm], func(t *testing.T) {
			key := generate(t, ks, keymgr.Spec{Zone: zoneName, Role: keymgr.ZSK, Algorithm: algorithm})
			if key.Algorithm != algorithm || key.Keystore != ks.Name() || key.Reference == "" {
				t.Errorf("key is of algorithm %d in keystore %q at %q", key.Algorithm, key.Keystore, key.Reference)
			}
			verifyDigests(t, ks, key)
			if err := keymgr.Prove(t.Context(), ks, key); err != nil {
				t.Error(err)
			}
		})
	}
}

func roles(t *testing.T, open Open, m Main) {
	ks := open(t)
	for role, flags := range map[keymgr.Role]uint16{keymgr.KSK: 257, keymgr.ZSK: 256, keymgr.CSK: 257} {
		key := m.generate(t, ks, role)
		rdata, err := keymgr.RData(key)
		if err != nil {
			t.Fatal(err)
		}
		if got := uint16(rdata[0])<<8 | uint16(rdata[1]); got != flags || key.Role != string(role) {
			t.Errorf("a %s has flags %d and role %q, want flags %d", role, got, key.Role, flags)
		}
	}
}

func reopen(t *testing.T, open Open, m Main) {
	first := m.generate(t, open(t), keymgr.KSK)
	second := m.generate(t, open(t), keymgr.ZSK)
	ks := open(t)
	verifyDigests(t, ks, first)
	verifyDigests(t, ks, second)
}

func concurrent(t *testing.T, open Open, m Main) {
	ks := open(t)
	shared := m.generate(t, ks, keymgr.ZSK)
	var wg sync.WaitGroup
	keys := make([]event.Key, 8)
	errs := make([]error, len(keys))
	for i := range keys {
		wg.Go(func() {
			keys[i], errs[i] = ks.Generate(t.Context(),
				m.spec(keymgr.ZSK), nil)
			if errs[i] == nil {
				errs[i] = errors.Join(keymgr.Prove(t.Context(), ks, keys[i]), keymgr.Prove(t.Context(), ks, shared))
			}
		})
	}
	s, err := ks.Signer(t.Context(), shared.Reference)
	if err != nil {
		t.Fatal(err)
	}
	rdata, err := keymgr.RData(shared)
	if err != nil {
		t.Fatal(err)
	}
	for i := range keys {
		wg.Go(func() {
			message := fmt.Appendf(nil, "message %d", i)
			sig, err := keymgr.Sign(s, shared.Algorithm, message)
			if err == nil {
				err = keymgr.Verify(rdata, message, sig)
			}
			if err != nil {
				t.Errorf("one signer used by many: %v", err)
			}
		})
	}
	wg.Wait()
	seen := map[string]bool{}
	for i, err := range errs {
		if err != nil {
			t.Errorf("goroutine %d: %v", i, err)
		}
		if seen[keys[i].Reference] {
			t.Errorf("two keys stand at %q", keys[i].Reference)
		}
		seen[keys[i].Reference] = true
	}
}

// batches has one key sign batches of all sizes at a time.
func batches(t *testing.T, open Open, m Main) {
	ks := open(t)
	key := m.generate(t, ks, keymgr.ZSK)
	rdata, err := keymgr.RData(key)
	if err != nil {
		t.Fatal(err)
	}
	s, err := ks.Signer(t.Context(), key.Reference)
	if err != nil {
		t.Fatal(err)
	}
	var wg sync.WaitGroup
	if whole, ok := s.(signer.MessageSigner); ok {
		for size := range 12 {
			wg.Go(func() { verifyMessages(t, whole, key, rdata, size) })
		}
		wg.Wait()
		return
	}
	batch, ok := s.(signer.BatchSigner)
	if !ok {
		t.Skip("its keys sign no batches")
	}
	for size := range 12 {
		wg.Go(func() {
			var digests []byte
			for i := range size {
				sum := sha256.Sum256(fmt.Appendf(nil, "message %d of %d", i, size))
				digests = append(digests, sum[:]...)
			}
			sigs, err := batch.SignBatch([]byte("before"), digests)
			if err != nil || len(sigs) != len("before")+64*size || string(sigs[:6]) != "before" {
				t.Errorf("a batch of %d gives %d bytes, %v", size, len(sigs), err)
				return
			}
			for i := range size {
				if err := keymgr.Verify(rdata, fmt.Appendf(nil, "message %d of %d", i, size), sigs[6+64*i:6+64*i+64]); err != nil {
					t.Errorf("signature %d of %d: %v", i, size, err)
				}
			}
		})
	}
	wg.Wait()
	if _, err := batch.SignBatch(nil, make([]byte, 33)); err == nil {
		t.Error("a batch of 33 bytes is signed")
	}
}

func missing(t *testing.T, open Open, m Main) {
	ks := open(t)
	made := m.generate(t, ks, keymgr.ZSK)
	for _, ref := range []string{"", "absent", "absent.pem", "../" + made.Reference, "x/" + made.Reference, "/etc/hostname", made.Reference + "x", "\x00"} {
		if _, err := ks.Signer(t.Context(), ref); !errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("Signer(%q) gives %v, want ErrNoKey", ref, err)
		}
		if err := ks.Remove(t.Context(), ref); !errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("Remove(%q) gives %v, want ErrNoKey", ref, err)
		}
	}
}

func remove(t *testing.T, open Open, m Main) {
	ks := open(t)
	gone := m.generate(t, ks, keymgr.ZSK)
	kept := m.generate(t, ks, keymgr.ZSK)
	if err := ks.Remove(t.Context(), gone.Reference); err != nil {
		t.Fatal(err)
	}
	for _, ks := range []keymgr.Keystore{ks, open(t)} {
		if _, err := ks.Signer(t.Context(), gone.Reference); !errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("the removed key: %v, want ErrNoKey", err)
		}
		verifyDigests(t, ks, kept)
	}
}

// avoid takes all tags but a few: the key must have one of those, and so must
// its revoked form.
func avoid(t *testing.T, open Open, m Main) {
	ks := open(t)
	var taken []uint16
	for tag := range 1 << 16 {
		if tag%16 >= 8 { // the revoked tag is 128 higher: in the same half
			taken = append(taken, uint16(tag))
		}
	}
	for range 8 {
		key, err := ks.Generate(t.Context(), m.spec(keymgr.ZSK), taken)
		if err != nil {
			t.Fatal(err)
		}
		rdata, err := keymgr.RData(key)
		if err != nil {
			t.Fatal(err)
		}
		if key.Tag%16 >= 8 || keymgr.RevokedTag(rdata)%16 >= 8 {
			t.Errorf("key tag %d, revoked %d: a taken one", key.Tag, keymgr.RevokedTag(rdata))
		}
	}
	all := make([]uint16, 1<<16)
	for i := range all {
		all[i] = uint16(i)
	}
	if _, err := ks.Generate(t.Context(), m.spec(keymgr.ZSK), all); err == nil {
		t.Error("a key was made though every tag is taken")
	}
}

func badSpecs(t *testing.T, open Open) {
	ks := open(t)
	for fact, spec := range map[string]keymgr.Spec{
		"unknown role":      {Zone: zoneName, Role: "xsk", Algorithm: dns.ECDSAP256SHA256},
		"no role":           {Zone: zoneName, Algorithm: dns.ECDSAP256SHA256},
		"unknown algorithm": {Zone: zoneName, Role: keymgr.ZSK, Algorithm: 5},
		"no algorithm":      {Zone: zoneName, Role: keymgr.ZSK},
		"short modulus":     {Zone: zoneName, Role: keymgr.ZSK, Algorithm: dns.RSASHA256, Bits: 512},
		"long modulus":      {Zone: zoneName, Role: keymgr.ZSK, Algorithm: dns.RSASHA256, Bits: 8192},
	} {
		if _, err := ks.Generate(t.Context(), spec, nil); err == nil {
			t.Errorf("%s: no error", fact)
		}
	}
}

func cancelled(t *testing.T, open Open, m Main) {
	ks := open(t)
	key := m.generate(t, ks, keymgr.ZSK)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := ks.Generate(ctx, m.spec(keymgr.ZSK), nil); !errors.Is(err, context.Canceled) {
		t.Errorf("Generate gives %v", err)
	}
	if _, err := ks.Signer(ctx, key.Reference); !errors.Is(err, context.Canceled) {
		t.Errorf("Signer gives %v", err)
	}
	if err := ks.Remove(ctx, key.Reference); !errors.Is(err, context.Canceled) {
		t.Errorf("Remove gives %v", err)
	}
	verifyDigests(t, ks, key)
}

func prove(t *testing.T, open Open, m Main, lacks []uint8) {
	ks := open(t)
	for _, algorithm := range []uint8{m.Algorithm, dns.ED25519} {
		if slices.Contains(lacks, algorithm) {
			continue
		}
		key, other := generate(t, ks, keymgr.Spec{Zone: zoneName, Role: keymgr.KSK, Algorithm: algorithm}), generate(t, ks, keymgr.Spec{Zone: zoneName, Role: keymgr.KSK, Algorithm: algorithm})
		if err := keymgr.Prove(t.Context(), ks, key); err != nil {
			t.Fatal(err)
		}
		swapped := key
		swapped.Reference = other.Reference
		if err := keymgr.Prove(t.Context(), ks, swapped); err == nil {
			t.Error("a key is proved by another one's private part")
		}
		lost := key
		lost.Reference = "absent.pem"
		if err := keymgr.Prove(t.Context(), ks, lost); !errors.Is(err, keymgr.ErrNoKey) {
			t.Errorf("a key without private part gives %v, want ErrNoKey", err)
		}
		forged := key
		forged.Tag++
		if err := keymgr.Prove(t.Context(), ks, forged); err == nil {
			t.Error("a description with a wrong tag is proved")
		}
	}
}
