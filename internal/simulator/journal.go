package simulator

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"sync"

	"go.uber.org/zap"
)

// entry is one line of the journal; exactly one member is set.
type entry struct {
	Key          *keyEntry       `json:"key,omitempty"`
	Design       *design         `json:"design,omitempty"`
	Certificate  *certificate    `json:"certificate,omitempty"`
	Registration *Registration   `json:"registration,omitempty"`
	Message      *Message        `json:"message,omitempty"`
	Enrolment    *enrolmentWrite `json:"enrolment,omitempty"`
}

type keyEntry struct {
	ID  string `json:"id"`
	DER []byte `json:"der"`
}

// journal is an append-only file of JSON lines. Each line is one write, so that a killed process loses at most the
// line it was writing; it is not synced to the disk, since a simulation need not outlive the machine.
type journal struct {
	mu   sync.Mutex
	file *os.File
	err  error // the first failure; later lines are not tried, so that the file stays readable
}

const journalName = "simulator.jsonl"

// openJournal reads what is there, hands each entry to replay, cuts off a half-written last line, and appends from
// then on.
func openJournal(dir string, replay func(entry) error) (*journal, error) {
	if err := os.MkdirAll(dir, 0o750); err != nil {
		return nil, err
	}
	file, err := os.OpenFile(filepath.Join(dir, journalName), os.O_RDWR|os.O_CREATE, 0o600) // #nosec G304 -- our own folder
	if err != nil {
		return nil, err
	}
	good, err := replayLines(file, replay)
	if err == nil {
		err = file.Truncate(good)
	}
	if err == nil {
		_, err = file.Seek(good, io.SeekStart)
	}
	if err != nil {
		return nil, errors.Join(fmt.Errorf("read %s: %w", file.Name(), err), file.Close())
	}
	return &journal{file: file}, nil
}

// replayLines gives how many bytes of the file are whole lines. A broken line that others follow is an error: what
// comes after it would be lost.
func replayLines(file *os.File, replay func(entry) error) (int64, error) {
	content, err := io.ReadAll(file)
	if err != nil {
		return 0, err
	}
	good := int64(0)
	for number := 1; ; number++ {
		line, rest, whole := bytes.Cut(content[good:], []byte("\n"))
		if !whole {
			return good, nil
		}
		var e entry
		if err := json.Unmarshal(line, &e); err != nil {
			if len(rest) == 0 {
				return good, nil
			}
			return 0, fmt.Errorf("line %d: %w", number, err)
		}
		if err := replay(e); err != nil {
			return 0, fmt.Errorf("line %d: %w", number, err)
		}
		good += int64(len(line)) + 1
	}
}

func (j *journal) append(e entry) error {
	line := append(encode(e), '\n')
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.err != nil {
		return nil
	}
	_, j.err = j.file.Write(line)
	return j.err
}

func (j *journal) close() error {
	if j == nil {
		return nil
	}
	return j.file.Close()
}

// record writes an entry when there is a journal. A failure is told once; the platform goes on from memory.
func (p *Platform) record(e entry) {
	if p.journal == nil {
		return
	}
	if err := p.journal.append(e); err != nil {
		p.log.Error("journal cannot be written; certificates from now on do not survive a restart", zap.Error(err))
	}
}

// restore brings back what an earlier run with the same DataDir kept.
func (p *Platform) restore() error {
	if p.cfg.DataDir == "" {
		return nil
	}
	designs := map[int]*design{}
	var err error
	p.journal, err = openJournal(p.cfg.DataDir, func(e entry) error { return p.replay(e, designs) })
	if err != nil {
		return fmt.Errorf("open data directory %s: %w", p.cfg.DataDir, err)
	}
	p.keys.made = func(id string, der []byte) { p.record(entry{Key: &keyEntry{id, der}}) }
	return nil
}

func (p *Platform) replay(e entry, designs map[int]*design) error {
	switch {
	case e.Key != nil:
		return p.keys.restore(e.Key.ID, e.Key.DER)
	case e.Design != nil:
		designs[e.Design.Number] = p.certs.intern(*e.Design, func(*design) {})
	case e.Certificate != nil:
		e.Certificate.design = designs[e.Certificate.Design]
		if e.Certificate.design == nil {
			return fmt.Errorf("certificate %s: unknown design %d", e.Certificate.ID, e.Certificate.Design)
		}
		p.certs.add(e.Certificate)
	case e.Registration != nil:
		p.registry.put(*e.Registration)
	case e.Message != nil:
		p.outbox.add(*e.Message)
	case e.Enrolment != nil:
		p.search.overlay(e.Enrolment.ID, e.Enrolment.Doc)
	}
	return nil
}
