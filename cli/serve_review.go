package cli

import (
	"context"
	"errors"
	"net/netip"
	"slices"
	"syscall"

	"sluice/journal/event"
	"sluice/xfr"
)

// listenReviews opens the review listeners and tells the engine where they
// are.
func (s *serving) listenReviews(ctx context.Context) (err error) {
	defer func() {
		if err == nil {
			return
		}
		for _, server := range s.reviews {
			err = errors.Join(err, server.Close())
		}
	}()
	s.reviewAt = map[string]netip.AddrPort{}
	for _, part := range []struct {
		stage, flag, usual string
		servers            []string
	}{
		{event.StageLoaded, "--review-loaded", defaultReviewLoaded, s.cfg.Loader.Review.Servers},
		{event.StageSigned, "--review-signed", defaultReviewSigned, s.cfg.Signer.Review.Servers},
	} {
		if len(part.servers) == 0 {
			continue
		}
		server, err := xfr.NewServer(xfr.Config{
			Source: s.engine.ReviewSource(part.stage), Listeners: s.sockets, Logger: s.log.With("part", part.stage+" review"),
		})
		if err != nil {
			return err
		}
		s.reviews = append(s.reviews, server)
		for i, address := range part.servers {
			bound, err := server.Listen(ctx, address)
			if errors.Is(err, syscall.EADDRINUSE) && slices.Equal(part.servers, []string{part.usual}) {
				if bound, err = server.Listen(ctx, "127.0.0.1:0"); err == nil {
					s.log.WarnContext(ctx, "review listener stands elsewhere: its port is in use",
						"stage", part.stage, "wanted", part.usual, "address", bound)
				}
			}
			if err != nil {
				return withHint(err, "choose another address with %s IP:PORT", part.flag)
			}
			if i == 0 {
				s.reviewAt[part.stage] = bound
			}
		}
	}
	s.engine.SetReviewServers(s.reviewAt[event.StageLoaded], s.reviewAt[event.StageSigned])
	return nil
}
