package journal

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/minio/highwayhash"
	"github.com/nats-io/nats-server/v2/server"
	"github.com/nats-io/nats.go/jetstream"
)

// The server keeps a stream's settings in two files, one with the settings and
// one with their checksum, and replaces each by itself. It passes over a
// stream whose files do not match, and does not write the checksum of settings
// that it finds when it makes the stream: a kill between the two files would
// leave a stream that takes messages until the next start and is not seen
// afterwards. So the files are made to match before the server starts.

func (j *NATS) streams() []jetstream.StreamConfig {
	return []jetstream.StreamConfig{j.eventsConfig(), j.bulkConfig()}
}

// streamDir is where the server keeps a stream in the store.
func streamDir(store, stream string) string {
	return filepath.Join(store, server.JetStreamStoreDir, server.DEFAULT_GLOBAL_ACCOUNT, "streams", stream)
}

// repairSettings writes a stream's settings anew where the server would not
// accept them. It leaves alone what cannot be told to be this journal's: a
// stream that is missing, and, in a store that was complete once, a directory
// with neither legible settings nor messages.
func (j *NATS) repairSettings(want jetstream.StreamConfig, m marker) error {
	dir := streamDir(j.cfg.Dir, want.Name)
	if _, err := os.Stat(dir); errors.Is(err, fs.ErrNotExist) {
		return nil
	} else if err != nil {
		return err
	}
	data, whole, err := readSettings(dir, want.Name)
	if err != nil || whole {
		return err
	}
	var have server.FileStreamInfo
	owner := ""
	if json.Unmarshal(data, &have) == nil {
		owner = have.Metadata[identityKey]
	}
	switch {
	case owner != "" && !m.owns(owner):
		return foreignStream(owner, m)
	case owner == "":
		have.Created = time.Time{}
		if found, err := holdsMessages(dir); err != nil || m.Complete && !found {
			return err
		}
	}
	j.log.Warn("stream settings were not whole; they are written anew", "stream", want.Name)
	return writeSettings(dir, want, have.Created)
}

// foreignStream is the error for a stream of another journal.
func foreignStream(owner string, m marker) error {
	return fmt.Errorf("it belongs to journal %q, the marker says %q", owner, m.Identity)
}

// readSettings returns what the file of settings holds, nothing if there is
// none, and whether the server accepts it.
func readSettings(dir, stream string) (data []byte, whole bool, err error) {
	data, err = os.ReadFile(filepath.Join(dir, server.JetStreamMetaFile))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	sum, err := os.ReadFile(filepath.Join(dir, server.JetStreamMetaFileSum))
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return nil, false, err
	}
	return data, len(data) > 0 && bytes.Equal(sum, settingsSum(stream, data)), nil
}

// settingsSum is the server's checksum of a stream's settings.
func settingsSum(stream string, data []byte) []byte {
	key := sha256.Sum256([]byte(stream))
	sum := highwayhash.Sum64(data, key[:])
	return hex.AppendEncode(nil, binary.LittleEndian.AppendUint64(nil, sum))
}

func writeSettings(dir string, want jetstream.StreamConfig, created time.Time) error {
	data, err := json.Marshal(want)
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	info := server.FileStreamInfo{Created: created}
	if err := json.Unmarshal(data, &info.StreamConfig); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	if data, err = json.Marshal(info); err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	err = replaceFile(filepath.Join(dir, server.JetStreamMetaFile), data)
	if err == nil {
		err = replaceFile(filepath.Join(dir, server.JetStreamMetaFileSum), settingsSum(want.Name, data))
	}
	if err != nil {
		return fmt.Errorf("write settings: %w", err)
	}
	return nil
}

// holdsMessages reports whether a stream's directory has a block of messages.
func holdsMessages(dir string) (bool, error) {
	blocks, err := filepath.Glob(filepath.Join(dir, "msgs", "*.blk"))
	if err != nil {
		return false, err
	}
	for _, b := range blocks {
		st, err := os.Stat(b)
		if err != nil {
			return false, err
		}
		if st.Size() > 0 {
			return true, nil
		}
	}
	return false, nil
}

// syncStreams sees to it that both streams, with the directories that lead to
// them, are on disk and will be found by the next start.
func (j *NATS) syncStreams() error {
	store := filepath.Clean(j.cfg.Dir)
	for _, cfg := range j.streams() {
		dir := streamDir(store, cfg.Name)
		_, whole, err := readSettings(dir, cfg.Name)
		if err == nil && !whole {
			err = errors.New("the server left its settings unfinished")
		}
		for _, name := range []string{server.JetStreamMetaFile, server.JetStreamMetaFileSum, "msgs"} {
			if err == nil {
				err = syncPath(filepath.Join(dir, name))
			}
		}
		for ; err == nil && dir != store; dir = filepath.Dir(dir) {
			err = syncPath(dir)
		}
		if err != nil {
			return fmt.Errorf("stream %s: %w", cfg.Name, err)
		}
	}
	// The marker's writing syncs the store's directory itself.
	if err := syncPath(filepath.Dir(store)); err != nil && !errors.Is(err, fs.ErrPermission) {
		return err
	}
	return nil
}
