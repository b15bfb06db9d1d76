package kmip

import (
	"context"
	"errors"
	"testing"
)

// Who finds a connection broken that others have replaced meanwhile says nothing
// about the new one: else the alarm would stay while all works.
func TestStore_ALateFaultDoesNotStay(t *testing.T) {
	s := newFakeServer(t).store(t)
	err := s.do(t.Context(), func(ctx context.Context, srv *server) error {
		s.lose(srv)
		if _, err := s.connected(ctx); err != nil {
			t.Error(err)
		}
		return lostError{errors.New("no answer"), true}
	})
	if err == nil {
		t.Error("the call went well")
	}
	if st := s.State(); !st.Connected || st.Problem != "" {
		t.Errorf("state %+v", st)
	}
}
