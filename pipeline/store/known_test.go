package store

import (
	"bytes"
	"errors"
	"sync"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"sluice/journal/event"
	"sluice/xfr"
)

// Views opened while events are applied show one instance throughout: what is
// remembered of a zone never meets a snapshot of another time.
func TestPublished_WhatIsRememberedFitsTheSnapshot(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Config{})
	defer s.Close()
	m, p := newModel("example.", 4), newSeeded(7)
	l := m.load(p, nil)
	sg := m.sign(p, m.instances[l], nil)
	m.publish(m.instances[sg])
	for range 60 {
		l = m.load(p, m.instances[l])
		sg = m.sign(p, m.instances[l], m.instances[sg])
		m.publish(m.instances[sg])
	}
	done := make(chan struct{})
	var readers sync.WaitGroup
	for range 3 {
		readers.Go(func() {
			for {
				select {
				case <-done:
					return
				default:
				}
				v, err := s.Published(m.id)
				if errors.Is(err, xfr.ErrNotReady) || errors.Is(err, xfr.ErrUnknownZone) {
					continue
				}
				if err != nil {
					t.Error(err)
					return
				}
				key, soa := v.SOA()
				got, err := v.Get(key)
				if err != nil || !bytes.Equal(got, soa) {
					t.Errorf("serial %d: SOA %x, the data have %x, %v", v.Serial(), soa, got, err)
				}
				head, err := s.head(v.snap, v.z)
				if err != nil || head != v.head || head.Signed != v.Meta().Seq {
					t.Errorf("head is %+v, remembered as %+v, view of %d, %v", head, v.head, v.Meta().Seq, err)
				}
				if err := v.Close(); err != nil {
					t.Error(err)
				}
			}
		})
	}
	for _, rec := range m.events {
		m.apply(t, s, rec)
	}
	close(done)
	readers.Wait()
}

func TestPublished_RemovedZoneIsUnknownAtOnce(t *testing.T) {
	m, s := published(t)
	v, err := s.Published(m.id)
	if err != nil {
		t.Fatal(err)
	}
	if err := v.Close(); err != nil {
		t.Fatal(err)
	}
	m.add(event.Instance, &event.ZoneRemoved{Name: "example.", ID: m.id})
	m.apply(t, s, m.events[len(m.events)-1])
	if _, err := s.Published(m.id); !errors.Is(err, xfr.ErrUnknownZone) {
		t.Errorf("error %v, want %v", err, xfr.ErrUnknownZone)
	}
}

func TestCountChanges_IsAtLeastWhatDiffers(t *testing.T) {
	s := openTest(t, vfs.NewMem(), Config{})
	defer s.Close()
	m, p := newModel("example.", 4), newSeeded(3)
	first := m.load(p, nil)
	last := first
	for range 5 {
		last = m.load(p, m.instances[last])
	}
	whole := m.load(p, nil)
	for _, rec := range m.events {
		m.apply(t, s, rec)
	}
	differ := uint64(0)
	if _, err := s.Changes(m.id, first, last, func(_, _, _ []byte) error { differ++; return nil }); err != nil {
		t.Fatal(err)
	}
	n, known, err := s.CountChanges(m.id, first, last)
	if err != nil || !known || n < differ || differ == 0 {
		t.Errorf("%d, %v, %v; %d items differ", n, known, err, differ)
	}
	if n, known, err := s.CountChanges(m.id, first, first); err != nil || !known || n != 0 {
		t.Errorf("of one instance: %d, %v, %v", n, known, err)
	}
	if _, known, err := s.CountChanges(m.id, first, whole); err != nil || known {
		t.Errorf("across a whole load: %v, %v", known, err)
	}
	if _, _, err := s.CountChanges(m.id, first, 999); !errors.Is(err, ErrNoInstance) {
		t.Errorf("error %v", err)
	}
}
