//go:build crash

package crash

import (
	"fmt"
	"os"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
)

// sentence is where this program dies, as its settings have it.
type sentence struct {
	point   string // "" = nowhere
	left    atomic.Int64
	learner string
}

var sentenced = sync.OnceValue(func() *sentence {
	s := &sentence{learner: os.Getenv(OnLearner)}
	setting := os.Getenv(At)
	if setting == "" {
		return s
	}
	point, times, _ := strings.Cut(setting, ":")
	n, err := strconv.Atoi(times)
	if err != nil || n < 1 || !known(point) {
		panic(fmt.Sprintf("%s=%q: want a point and a number, such as %q", At, setting, after+register+":17"))
	}
	s.point = point
	s.left.Store(int64(n))
	return s
})

func known(point string) bool {
	return slices.Contains(ConsumerPoints(), point) || slices.Contains(APIPoints(), point)
}

// passed is told of each point; a test looks at it.
var passed = func(point string) {
	if s := sentenced(); s.point == point && s.left.Add(-1) == 0 {
		die()
	}
}

// doing passes the point before a deed, and returns what passes the one after.
func doing(deed string) (done func()) {
	if !known(before + deed) {
		panic(fmt.Sprintf("%q is not in the list of points", before+deed))
	}
	passed(before + deed)
	return func() { passed(after + deed) }
}

// meet is told of each learner before anything is made for him.
func meet(learner string) {
	if learner == sentenced().learner {
		die()
	}
}

// die ends the program as a power cut would: nothing is flushed, nobody is told.
func die() {
	_ = syscall.Kill(syscall.Getpid(), syscall.SIGKILL) // a process may always kill itself
	select {}
}
