package journal

import (
	"cmp"
	"context"
	"fmt"
	"slices"
	"time"
)

// ClusterStatus is where a journal is kept, and how safely.
type ClusterStatus struct {
	Identity string `json:"identity"`
	// Mode is embedded, where the store is this process's own, else external.
	Mode string `json:"mode"`
	// Server is the one that this process is connected to, Cluster the cluster
	// that it belongs to; URLs are the servers that are known.
	Server  string          `json:"server,omitempty"`
	Version string          `json:"version"`
	Cluster string          `json:"cluster,omitempty"`
	URLs    []string        `json:"urls,omitempty"`
	Streams []ClusterStream `json:"streams"`
	// Problems says what is not as it should be, and what to do.
	Problems []string `json:"problems"`
}

// ClusterStream is one stream and its replicas.
type ClusterStream struct {
	Name     string           `json:"name"`
	Replicas int              `json:"replicas"`
	Leader   string           `json:"leader,omitempty"`
	Peers    []ClusterReplica `json:"peers"` // all but the leader
	StreamStatus
}

// ClusterReplica is one copy of a stream.
type ClusterReplica struct {
	Name    string `json:"name"`
	Current bool   `json:"current"`
	Offline bool   `json:"offline"`
	Lag     uint64 `json:"lag"`         // operations that it lacks
	Silent  int64  `json:"silent_msec"` // since it was last heard
}

// The modes of ClusterStatus.
const (
	ModeEmbedded = "embedded"
	ModeExternal = "external"
)

// Cluster describes the servers that keep the journal.
func (j *NATS) Cluster(ctx context.Context) (ClusterStatus, error) {
	s, err := j.session()
	if err != nil {
		return ClusterStatus{}, err
	}
	st := ClusterStatus{
		Identity: j.identity, Mode: ModeEmbedded, Version: s.nc.ConnectedServerVersion(),
		Streams: []ClusterStream{}, Problems: []string{},
	}
	if j.remote() {
		st.Mode, st.Server, st.Cluster = ModeExternal, s.nc.ConnectedServerName(), s.nc.ConnectedClusterName()
		st.URLs = s.nc.Servers()
		slices.Sort(st.URLs)
	}
	for _, name := range []string{eventsStream, bulkStream} {
		info, err := j.anyInfo(ctx, name)
		if err != nil {
			return ClusterStatus{}, fmt.Errorf("describe stream %s: %w", name, err)
		}
		c := ClusterStream{
			Name: name, Replicas: info.Config.Replicas, Peers: []ClusterReplica{},
			StreamStatus: StreamStatus{
				Messages: info.State.Msgs, Bytes: info.State.Bytes, MaxBytes: info.Config.MaxBytes,
				FirstSeq: info.State.FirstSeq, LastSeq: info.State.LastSeq,
			},
		}
		if info.Cluster != nil {
			c.Leader = info.Cluster.Leader
			for _, r := range info.Cluster.Replicas {
				c.Peers = append(c.Peers, ClusterReplica{
					Name: r.Name, Current: r.Current && !r.Offline, Offline: r.Offline, Lag: r.Lag, Silent: int64(r.Active / time.Millisecond),
				})
			}
			slices.SortFunc(c.Peers, func(a, b ClusterReplica) int { return cmp.Compare(a.Name, b.Name) })
		}
		st.Streams = append(st.Streams, c)
		st.Problems = append(st.Problems, c.problems(st.Cluster != "")...)
	}
	return st, nil
}

// problems says what is wrong with the copies of a stream.
func (c ClusterStream) problems(clustered bool) (texts []string) {
	if !clustered {
		return nil
	}
	if c.Replicas < 3 {
		texts = append(texts, fmt.Sprintf("stream %s has %s: it stands still while a server of it is away; nats stream edit %s --replicas 3", c.Name, plural(c.Replicas, "replica"), c.Name))
	}
	if c.Leader == "" {
		texts = append(texts, fmt.Sprintf("stream %s has no leader: nothing is written before most of its servers are back", c.Name))
	}
	for _, p := range c.Peers {
		switch {
		case p.Offline:
			texts = append(texts, fmt.Sprintf("server %s of stream %s is away: bring it back; with one more lost nothing is written", p.Name, c.Name))
		case !p.Current:
			texts = append(texts, fmt.Sprintf("server %s of stream %s lags by %s: it catches up by itself; look at its disk and its routes if it does not", p.Name, c.Name, plural(int(p.Lag), "operation")))
		}
	}
	return texts
}

func plural(n int, noun string) string {
	if n == 1 {
		return "1 " + noun
	}
	return fmt.Sprintf("%d %ss", n, noun)
}
