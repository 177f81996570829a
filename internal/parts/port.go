package parts

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"strconv"
	"sync"
)

// taken are the ports that this process has given away: who got one may not
// listen yet.
var taken sync.Map

// freePort picks a port for a part to listen on. It is none of those that the
// system gives to outgoing connections (from 32768 on Linux, 49152 elsewhere):
// one of these could take it while the part is down and its test waits for its
// return.
func freePort(ctx context.Context) (int, error) {
	const lowest, highest, tries = 15_000, 32_000, 100
	var err error
	for range tries {
		port := lowest + rand.IntN(highest-lowest)
		if _, given := taken.LoadOrStore(port, true); given {
			continue
		}
		var listener net.Listener
		if listener, err = new(net.ListenConfig).Listen(ctx, "tcp", loopback(port)); err == nil {
			return port, listener.Close()
		}
	}
	return 0, fmt.Errorf("find a free port of loopback between %d and %d: %w", lowest, highest, err)
}

func loopback(port int) string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(port)) }
