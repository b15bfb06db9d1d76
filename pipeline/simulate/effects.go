package simulate

import (
	"cmp"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/miekg/dns"

	"sluice/journal/event"
	"sluice/keymgr"
	"sluice/pipeline"
)

// do says what a command would have recorded.
func (r *run) do(c pipeline.Command) ([]event.Facts, error) {
	s, p := r.state, r.set.Policy
	switch c := c.(type) {
	case pipeline.BindPolicy:
		return []event.Facts{&event.PolicyBound{
			Zone: s.Name, Source: s.Source, Policy: p.Name, SHA256: p.SHA256, Text: string(p.Text),
		}}, nil
	case pipeline.GenerateKeys:
		made := &event.KeyGenerated{Ahead: c.Ahead}
		for i, role := range c.Roles {
			spec := keymgr.Spec{Zone: s.Name, Role: role, Algorithm: c.Algorithm, Bits: c.Bits}
			if len(c.Keystores) > i {
				spec.Keystore = c.Keystores[i]
			}
			k, err := r.makeKey(spec, s.Keys.Tags())
			if err != nil {
				return nil, err
			}
			made.Keys = append(made.Keys, k)
		}
		return []event.Facts{made}, nil
	case pipeline.ActivateKeys:
		return []event.Facts{&event.KeyActivated{IDs: slices.Clone(c.IDs)}}, nil
	case pipeline.ChangeCDS:
		return []event.Facts{&event.CDSChanged{CDS: c.CDS, Reason: c.Reason}}, nil
	case pipeline.DestroyKeys:
		return []event.Facts{&event.KeyDestroyed{IDs: c.IDs}}, nil
	case pipeline.BeginRollover:
		do, _, err := s.Begin(p, r.view(), pipeline.RolloverRequest{Kind: c.Kind, Reason: c.Reason}, nil, r.makeKey)
		return do, err
	case pipeline.AdvanceRollover:
		return s.Advance(p, r.view(), c), nil
	case pipeline.Load:
		return []event.Facts{&event.InstanceLoaded{
			Source: c.Source, Serial: 1, ContentDigest: sha256.Sum256([]byte(s.Name)), RRsets: uint64(r.set.RRsets), //nolint:gosec // not negative
			Records: uint64(r.set.RRsets), MaxTTL: uint32(r.set.ZoneTTL / time.Second), //nolint:gosec // not negative
		}}, nil
	case pipeline.Sign:
		return r.sign(c)
	case pipeline.Publish:
		f := s.Signed.Facts
		return []event.Facts{&event.InstancePublished{
			Signed: c.Signed, Loaded: f.Loaded, Serial: f.Serial, SignedDigest: f.SignedDigest, Keep: p.DiffLimits(),
		}}, nil
	case pipeline.OpenReview:
		return r.approve(c.Stage, c.Instance)
	case pipeline.RunHook:
		return r.approve(c.Stage, c.Instance)
	case pipeline.CloseReview:
		return r.approve(c.Stage, c.Instance)
	case pipeline.Rollback:
		return nil, errors.New("a rehearsal on paper has no versions to go back to")
	case pipeline.ApplyUpdates:
		return nil, errors.New("a rehearsal on paper takes no updates")
	case pipeline.HandKeys:
		return nil, errors.New("a rehearsal on paper has no other processes to hand keys to")
	case pipeline.AdoptKeys:
		return nil, errors.New("a rehearsal on paper imports no keys")
	case pipeline.RunParentHook:
		return r.runHook(c)
	case pipeline.PushDS:
		r.follow("it took the dynamic update")
		return []event.Facts{&event.DSPushed{Request: c.Request, Server: parentName(0), Zone: c.Zone, Rcode: "NOERROR"}}, nil
	case pipeline.PushSignal:
		return []event.Facts{&event.SignalPushed{Keys: c.Keys, Owners: []string{"_dsboot." + r.state.Name + "_signal." + serverName(0)}}}, nil
	case pipeline.NotifyParent:
		return r.notifyParent(c)
	}
	return nil, fmt.Errorf("a rehearsal on paper knows no command %T", c)
}

// approve lets an instance pass its review at once: a rehearsal is about keys.
func (r *run) approve(stage string, instance uint64) ([]event.Facts, error) {
	digest := event.Hash{}
	switch s := r.state; {
	case stage == event.StageLoaded && s.Loaded != nil:
		digest = s.Loaded.Facts.ContentDigest
	case stage == event.StageSigned && s.Signed != nil:
		digest = s.Signed.Facts.SignedDigest
	}
	return []event.Facts{&event.ReviewApproved{
		Stage: stage, Instance: instance, Digest: digest, Checker: "rehearsal", Passed: true, Reason: "reviews pass at once on paper",
	}}, nil
}

// makeKey describes a key that nobody has: its public key follows from the
// number of keys made so far.
func (r *run) makeKey(spec keymgr.Spec, avoid []uint16) (event.Key, error) {
	field, err := publicField(spec)
	if err != nil {
		return event.Key{}, err
	}
	head := binary.BigEndian.AppendUint16(nil, keymgr.RoleFlags(spec.Role))
	head = append(head, 3, spec.Algorithm)
	for {
		r.lives.made++
		seed := binary.BigEndian.AppendUint64([]byte(spec.Zone), uint64(r.lives.made)) //nolint:gosec // not negative
		k := keymgr.Describe(spec.Role, append(slices.Clone(head), field(seed)...))
		if !slices.Contains(avoid, k.Tag) {
			k.Keystore, k.Reference = cmp.Or(spec.Keystore, "file"), k.ID
			return k, nil
		}
	}
}

// publicField makes public key fields of the length that the algorithm has.
func publicField(spec keymgr.Spec) (func(seed []byte) []byte, error) {
	size, head := 0, []byte(nil)
	switch spec.Algorithm {
	case dns.ECDSAP256SHA256:
		size = 64
	case dns.ECDSAP384SHA384:
		size = 96
	case dns.ED25519:
		size = 32
	case dns.ED448:
		size = 57
	case dns.RSASHA256, dns.RSASHA512:
		size, head = max(spec.Bits, 1024)/8, []byte{3, 1, 0, 1}
	default:
		return nil, fmt.Errorf("algorithm %d is not supported", spec.Algorithm)
	}
	return func(seed []byte) []byte {
		out := slices.Clone(head)
		for n := byte(0); len(out) < len(head)+size; n++ {
			sum := sha256.Sum256(append(slices.Clone(seed), n))
			out = append(out, sum[:]...)
		}
		return out[:len(head)+size]
	}, nil
}
