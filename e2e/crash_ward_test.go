//go:build realparts

package e2e

import (
	"path/filepath"
	"syscall"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/crash"
)

// ward is a program that is started again whenever it has died, as an
// orchestrator would do it.
type ward struct {
	h        *house
	binary   string
	settings []string
	points   []string // where its next starts are to die: "before claim:3"
	armed    string   // where this start is to die; "" = nowhere
	idle     bool     // it is not to run
	running  *process // nil = it has not come up yet
	deaths   int
	diedAt   []string // the points among them
}

// tend starts a program that is not running. One that cannot start, because a
// part is away, is tried again when it is tended next.
func (w *ward) tend() {
	w.h.tb.Helper()
	if w.idle || w.running != nil && !w.dead() {
		return
	}
	if w.armed == "" && len(w.points) > 0 {
		w.armed, w.points = w.points[0], w.points[1:]
	}
	settings := w.settings
	if w.armed != "" {
		settings = append(settings[:len(settings):len(settings)], crash.At+"="+w.armed)
	}
	if p, err := w.h.launch(w.binary, settings...); err == nil {
		w.running = p
	}
}

// dead says that the program has died since it was tended last, and counts it.
// That it ended by itself is a defect.
func (w *ward) dead() bool {
	w.h.tb.Helper()
	select {
	case <-w.running.ended:
	default:
		return false
	}
	status, ok := w.running.cmd.ProcessState.Sys().(syscall.WaitStatus)
	require.True(w.h.tb, ok && status.Signaled() && status.Signal() == syscall.SIGKILL,
		"%s was not killed, it ended by itself (%v): %s", w.binary, w.running.cmd.ProcessState, w.h.log.tail(20))
	w.h.tb.Logf("%s %s died %s", time.Now().Format(time.TimeOnly), filepath.Base(w.binary), w.armed)
	if w.armed != "" {
		w.diedAt = append(w.diedAt, w.armed)
	}
	w.running, w.armed = nil, ""
	w.deaths++
	return true
}

// arm lets the program die at points, in one start after the other.
func (w *ward) arm(points []string) {
	w.disarm()
	w.points = points
	w.tend()
}

// disarm stops the program properly.
func (w *ward) disarm() {
	if w.running != nil && !w.dead() {
		w.running.stop()
		w.running = nil
	}
	w.points, w.armed = nil, ""
}

// strike kills the program, whatever it is doing.
func (w *ward) strike() {
	w.h.tb.Helper()
	if w.running != nil {
		_ = w.running.cmd.Process.Kill() // it may have died already
		<-w.running.ended
	}
}

// mortal says that a point waits for this program.
func (w *ward) mortal() bool { return w.armed != "" || len(w.points) > 0 }

// signal stops the program, or lets it go on.
func (w *ward) signal(s syscall.Signal) {
	w.h.tb.Helper()
	require.NoError(w.h.tb, w.running.cmd.Process.Signal(s))
}

// Pauses between two looks at an installation: at what costs nothing, and at
// what somebody has to answer.
const (
	glimpse = 5 * time.Millisecond
	look    = 100 * time.Millisecond
)
