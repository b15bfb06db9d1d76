package journal

import (
	"context"
	"errors"
	"fmt"
)

// OpenStandby opens the store of a standby that does not run, to look at it and
// to promote it. from is where the journal is that it is the copy of.
func OpenStandby(ctx context.Context, cfg Config) (j *NATS, from string, err error) {
	cfg.mode = standbyMode
	j = newNATS(cfg)
	if j.lock, err = lockStore(cfg.Dir); err != nil {
		return nil, "", errors.Join(err, j.Close())
	}
	m, err := peekMarker(cfg.Dir)
	switch {
	case err != nil:
	case m == nil:
		err = fmt.Errorf("%w: %s holds no copy of a journal: sluice cluster standby makes one", ErrMode, cfg.Dir)
	case m.Mode == standalone && m.Was != "":
		err = fmt.Errorf("%w: %s was promoted already: start the daemon", ErrMode, cfg.Dir)
	case m.Mode != standbyMode:
		err = modeError(cfg.Dir, *m)
	default:
		from = m.CopyOf
		err = j.init(ctx)
	}
	if err != nil {
		return nil, "", errors.Join(err, j.Close())
	}
	return j, from, nil
}

// Answers reports whether a server answers for the journal of an identity.
func Answers(ctx context.Context, cfg Config, identity string) (bool, error) {
	j := newNATS(cfg)
	to, err := dialEnd(cfg.Remote, j.log, j.cfg.Timeout)
	if errors.Is(err, ErrStorage) {
		return false, nil
	}
	if err != nil {
		return false, err
	}
	defer to.nc.Close()
	info, err := to.info(ctx, eventsStream)
	switch {
	case errors.Is(err, ErrUnreachable), errors.Is(err, errNotFound):
		return false, nil
	case err != nil:
		return false, err
	}
	return info.Config.Metadata[identityKey] == identity, nil
}

// BeginPromotion marks a standby's store as about to be promoted: it takes no
// more from the journal that it is the copy of, but events of its own. It says
// whether an earlier promotion began and was interrupted.
func (j *NATS) BeginPromotion() (resumed bool, err error) {
	m, err := readMarker(j.cfg.Dir, standbyMode)
	if err != nil || m.Next != "" {
		return m.Next != "", err
	}
	if m.Next, err = newIdentity(); err != nil {
		return false, err
	}
	return false, writeMarker(j.cfg.Dir, m)
}

// FinishPromotion makes a journal of its own of a standby's store, with a new
// identity, so that no projection and no copy takes it for the one that it comes
// from. former are the origins of the logs that it goes on from. It holds from
// the next Open on, which has to follow.
func (j *NATS) FinishPromotion(former []string) (identity string, err error) {
	m, err := readMarker(j.cfg.Dir, standbyMode)
	if err != nil {
		return "", err
	}
	if m.Next == "" {
		return "", errors.New("the promotion did not begin")
	}
	// Commit: with this marker the store is a journal; before, it is a copy.
	m.Restored = &restored{Former: former}
	m.Mode, m.Was, m.Identity, m.Next = standalone, m.Identity, m.Next, ""
	return m.Identity, writeMarker(j.cfg.Dir, m)
}
