package parts

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	// patience is for a part to answer: seconds on an idle machine, and several
	// test binaries share this one.
	patience = 90 * time.Second
	// glimpse is the pause between two looks at it.
	glimpse = 50 * time.Millisecond
	// stopPatience is for a part that was told to stop.
	stopPatience = 30 * time.Second
	// logLines is how much of a part's log an error shows.
	logLines = 30
)

// command is how a part is started.
type command struct {
	name string   // for messages
	args []string // program and arguments
	log  string   // file that takes what it prints
	stop os.Signal
	user *syscall.Credential // nil = ours
}

// process is a part that runs.
//
// It runs in a process group that a watcher leads: a shell that waits on a pipe
// of which this process holds the other end. However this process ends, the
// pipe closes, and the watcher kills the group, itself included. The watcher
// comes first and the part joins its group, so there is no moment without it.
type process struct {
	command
	part     *exec.Cmd
	watcher  *exec.Cmd
	lifeline *os.File
	ended    chan struct{} // the part ended
}

const watch = "read -r _; kill -KILL 0"

func start(ctx context.Context, c command) (*process, error) {
	p := &process{command: c, ended: make(chan struct{})}
	if err := p.startWatcher(ctx); err != nil {
		return nil, fmt.Errorf("start the watcher of %s: %w", c.name, err)
	}
	if err := p.startPart(ctx); err != nil {
		p.killGroup()
		return nil, fmt.Errorf("start %s: %w", c.name, err)
	}
	go func() {
		defer close(p.ended)
		_ = p.part.Wait() // how it ended is for its log to tell
	}()
	return p, nil
}

func (p *process) startWatcher(ctx context.Context) error {
	watched, lifeline, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = watched.Close() }() // the watcher has it
	p.lifeline = lifeline
	p.watcher = exec.CommandContext(ctx, "/bin/sh", "-c", watch)
	p.watcher.Stdin = watched
	p.watcher.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := p.watcher.Start(); err != nil {
		return errors.Join(err, lifeline.Close())
	}
	return nil
}

func (p *process) startPart(ctx context.Context) error {
	log, err := os.OpenFile(p.log, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	defer func() { _ = log.Close() }()                          // the part has it
	p.part = exec.CommandContext(ctx, p.args[0], p.args[1:]...) //nolint:gosec // a part, with arguments of ours
	p.part.Stdout, p.part.Stderr = log, log
	p.part.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Pgid: p.watcher.Process.Pid, Credential: p.user}
	return p.part.Start()
}

// kill ends the part as a power cut would, with the processes it has started:
// PostgreSQL's lead groups of their own, and a busy one outlives the server by
// its query. (A stopped part starts no more of them.)
func (p *process) kill() {
	_ = p.part.Process.Signal(syscall.SIGSTOP) // it may have ended already
	for _, child := range childrenOf(p.part.Process.Pid) {
		_ = syscall.Kill(child, syscall.SIGKILL)
	}
	p.killGroup()
	<-p.ended
}

// childrenOf reads who was started by a process; nobody where there is no /proc.
func childrenOf(parent int) []int {
	files, _ := filepath.Glob("/proc/[0-9]*/stat") // the pattern is right
	var children []int
	for _, file := range files {
		stat, _ := os.ReadFile(file) // it may have ended meanwhile
		// pid (name) state parent …; the name may hold anything.
		fields := strings.Fields(string(stat)[strings.LastIndexByte(string(stat), ')')+1:])
		if len(fields) > 1 && fields[1] == strconv.Itoa(parent) {
			child, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
			children = append(children, child)
		}
	}
	return children
}

// killGroup ends part and watcher. The group is there as long as its leader,
// the watcher, has not been waited for.
func (p *process) killGroup() {
	_ = syscall.Kill(-p.watcher.Process.Pid, syscall.SIGKILL)
	_ = p.watcher.Wait() // says that it was killed
	_ = p.lifeline.Close()
}

// end tells the part to stop, and kills what is left of it.
func (p *process) end() error {
	defer p.kill()
	if err := p.part.Process.Signal(p.stop); err != nil && !errors.Is(err, os.ErrProcessDone) {
		return fmt.Errorf("tell %s to stop: %w", p.name, err)
	}
	select {
	case <-p.ended:
		return nil
	case <-time.After(stopPatience):
		return p.blame(fmt.Errorf("it did not stop within %v of being told to", stopPatience))
	}
}

// await waits until the part answers.
func (p *process) await(ctx context.Context, answers func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	ticker := time.NewTicker(glimpse)
	defer ticker.Stop()
	for {
		err := answers(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-p.ended:
			return p.blame(errors.New("it ended while it started"))
		case <-ctx.Done():
			return p.blame(fmt.Errorf("it does not answer within %v: %w", patience, err))
		case <-ticker.C:
		}
	}
}

// blame adds the end of the part's log, where the cause stands.
func (p *process) blame(err error) error {
	return fmt.Errorf("%s: %w; the end of its log:\n%s", p.name, err, tail(p.log))
}

func tail(file string) string {
	text, err := os.ReadFile(file)
	if err != nil {
		return err.Error()
	}
	lines := strings.Split(strings.TrimSpace(string(text)), "\n")
	return strings.Join(lines[max(0, len(lines)-logLines):], "\n")
}
