package simulator

import (
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"time"

	"go.uber.org/zap"
)

// server is one service's listener. It can go down and come back on the same address: an outage that callers see as
// refused connections.
type server struct {
	service Service
	handler http.Handler
	log     *zap.Logger

	mu     sync.Mutex
	addr   string
	live   *http.Server
	served chan struct{} // closed when the accept loop of live has ended
	closed bool
}

func (s *server) up() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live != nil || s.closed {
		return nil
	}
	listener, err := net.Listen("tcp", s.addr) //nolint:noctx // taking a port does not wait for anything
	if err != nil {
		return fmt.Errorf("%s service cannot listen on %s: %w", s.service, s.addr, err)
	}
	s.addr = listener.Addr().String()
	errorLog, err := zap.NewStdLogAt(s.log, zap.DebugLevel) // cut connections are on purpose here
	if err != nil {
		return errors.Join(err, listener.Close())
	}
	live := &http.Server{
		Handler:           s.handler,
		ReadHeaderTimeout: 10 * time.Second,
		IdleTimeout:       2 * time.Minute,
		ErrorLog:          errorLog,
	}
	served := make(chan struct{})
	go func() {
		defer close(served)
		if err := live.Serve(listener); !errors.Is(err, http.ErrServerClosed) {
			_ = listener.Close()
		}
	}()
	s.live, s.served = live, served
	return nil
}

// down closes the listener and every connection; what is being worked goes on, but nobody hears of it.
func (s *server) down() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.live == nil {
		return
	}
	_ = s.live.Close()
	<-s.served
	s.live = nil
}

func (s *server) close() {
	s.down()
	s.mu.Lock()
	s.closed = true
	s.mu.Unlock()
}

func (s *server) url() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return "http://" + s.addr
}
