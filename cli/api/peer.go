package api

import (
	"cmp"
	"context"
	"net"
	"os/user"
	"strconv"

	"golang.org/x/sys/unix"
)

// ConnContext names whoever is at the other end of a unix socket the caller of
// its requests: who may open the socket may do everything. It is the
// ConnContext of an http.Server whose handler is Handler.
func ConnContext(ctx context.Context, c net.Conn) context.Context {
	if _, ok := c.(*net.UnixConn); !ok {
		return ctx
	}
	name := cmp.Or(peerName(c), "unknown")
	return WithIdentity(ctx, Identity{Name: name, Door: "cli", Roles: []Role{RoleAdmin}})
}

// peerName is the user behind a unix socket, by name or as "uid:N"; empty
// where the kernel does not say.
func peerName(c net.Conn) string {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return ""
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return ""
	}
	var cred *unix.Ucred
	controlErr := raw.Control(func(fd uintptr) {
		cred, err = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	})
	if controlErr != nil || err != nil {
		return ""
	}
	uid := strconv.FormatUint(uint64(cred.Uid), 10)
	if who, err := user.LookupId(uid); err == nil {
		return who.Username
	}
	return "uid:" + uid
}
