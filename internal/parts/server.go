package parts

import (
	"context"
	"testing"
)

// Server is a part that was started. It may be killed and started again, on
// the same address and with the same data.
type Server struct {
	command command
	answers func(context.Context) error
	process *process // nil = it does not run
}

// start returns when the part answers.
func (s *Server) start(ctx context.Context) error {
	ctx = context.WithoutCancel(ctx) // a part outlives what it was started by
	process, err := start(ctx, s.command)
	if err != nil {
		return err
	}
	s.process = process
	if err := process.await(ctx, s.answers); err != nil {
		s.kill()
		return err
	}
	return nil
}

func (s *Server) kill() {
	if s.process != nil {
		s.process.kill()
		s.process = nil
	}
}

// Kill ends the part as kill -9 does; one that does not run is left alone.
func (s *Server) Kill(tb testing.TB) {
	tb.Helper()
	s.kill()
}

// Restart starts a part that was killed or stopped, and returns when it answers.
func (s *Server) Restart(tb testing.TB) {
	tb.Helper()
	if s.process != nil {
		tb.Fatalf("%s runs: kill or stop it before it is started again", s.command.name)
	}
	if err := s.start(tb.Context()); err != nil {
		tb.Fatal(err)
	}
}

// Stop lets the part end properly.
func (s *Server) Stop(tb testing.TB) {
	tb.Helper()
	if s.process == nil {
		return
	}
	err := s.process.end()
	s.process = nil
	if err != nil {
		tb.Fatal(err)
	}
}
