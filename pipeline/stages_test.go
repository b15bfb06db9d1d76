package pipeline

import "testing"

func TestStages_ASilentSourceIsNoFaultOfLoading(t *testing.T) {
	for _, c := range []struct {
		name         string
		upstream     *UpstreamStatus
		source, load string
	}{
		{"nobody answers", &UpstreamStatus{LastError: "connection refused"}, stageFailed, stageWaiting},
		{"what was sent is wrong", &UpstreamStatus{}, stageDone, stageFailed},
		{"a file", nil, stageDone, stageFailed},
	} {
		st := ZoneStatus{Upstream: c.upstream}
		st.LastError = "something"
		st.Notices = []Notice{{Code: NoticeLoadFailed, Text: "loading failed"}}
		stages := stagesOf(st, Policy{})
		if stages[0].State != c.source || stages[1].State != c.load {
			t.Errorf("%s: source %s, load %s; want %s, %s", c.name, stages[0].State, stages[1].State, c.source, c.load)
		}
	}
}
