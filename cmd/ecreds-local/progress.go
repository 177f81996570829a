package main

import (
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/term"
)

const (
	barWidth = 30
	// plainEvery is how often a line is printed where no terminal can redraw
	// one.
	plainEvery = 2 * time.Second
)

// shownStates are the states of a job's counts in the order of the way.
var shownStates = []string{
	"queued", "generating", "generated", "registering", "registered", "notifying", "notified", "retrying", "failed",
}

// progress shows a job as it moves: one line redrawn on a terminal, plain lines
// elsewhere.
type progress struct {
	out      io.Writer
	terminal *os.File // nil = out is none
	printed  time.Time
	began    time.Time
}

func newProgress(out io.Writer) *progress {
	p := &progress{out: out, began: time.Now()}
	if file, ok := out.(*os.File); ok && term.IsTerminal(int(file.Fd())) {
		p.terminal = file
	}
	return p
}

func (p *progress) update(j job) {
	line := p.line(j)
	if p.terminal != nil {
		fmt.Fprintf(p.out, "\r\x1b[2K%s", p.fit(line))
		return
	}
	if j.Done || time.Since(p.printed) >= plainEvery {
		fmt.Fprintln(p.out, line)
		p.printed = time.Now()
	}
}

func (p *progress) end() {
	if p.terminal != nil {
		fmt.Fprintln(p.out)
	}
}

// fit cuts a line to the terminal's width: one that wraps could not be redrawn.
func (p *progress) fit(line string) string {
	width, _, err := term.GetSize(int(p.terminal.Fd()))
	characters := []rune(line)
	if err != nil || width <= 0 || len(characters) < width {
		return line
	}
	return string(characters[:width-1])
}

func (p *progress) line(j job) string {
	settled := j.Counts["notified"] + j.Counts["failed"]
	share := 1.0
	if j.Eligible > 0 {
		share = min(1, float64(settled)/float64(j.Eligible))
	}
	full := int(share * barWidth)
	var states []string
	for _, state := range shownStates {
		if n := j.Counts[state]; n > 0 {
			states = append(states, fmt.Sprintf("%s %d", state, n))
		}
	}
	return fmt.Sprintf("  %s%s %3.0f %%  issued %d  %s  %.0f s", strings.Repeat("█", full),
		strings.Repeat("░", barWidth-full), 100*share, j.Counts["issued"], strings.Join(states, " · "),
		time.Since(p.began).Seconds())
}
