package simulator

import (
	"archive/zip"
	"bytes"
	"context"
	"errors"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"strings"
	"sync"
	"time"
)

// verdict is what cert-service finds behind a template's address.
type verdict int

const (
	templateGood verdict = iota
	templateNotURL
	templateRefused
	templateSilent
	templateMissing
	templateBroken
	templateNoIndex
	templateBadVariables
)

const (
	// fetchPatience is how long an address may take before it counts as never answering.
	fetchPatience = 2 * time.Second
	// badVerdictLife lets a corrected template work soon; a good one is kept for ever, as the service keeps the zip on
	// its disk.
	badVerdictLife = time.Second
	templateLimit  = 8 << 20
)

// templateChecker fetches each template once and remembers the verdict.
type templateChecker struct {
	client *http.Client
	stop   <-chan struct{}

	mu   sync.Mutex
	seen map[string]*templateEntry
}

type templateEntry struct {
	done    chan struct{}
	verdict verdict
	at      time.Time
}

func newTemplateChecker(stop <-chan struct{}) *templateChecker {
	return &templateChecker{
		client: &http.Client{Transport: &http.Transport{}, Timeout: fetchPatience},
		stop:   stop, seen: map[string]*templateEntry{},
	}
}

// check gives the verdict on an address; callers that come while it is being fetched wait for the same fetch.
func (t *templateChecker) check(ctx context.Context, address string) verdict {
	t.mu.Lock()
	e := t.seen[address]
	if e != nil && e.stale() {
		e = nil
	}
	if e != nil {
		t.mu.Unlock()
		<-e.done
		return e.verdict
	}
	e = &templateEntry{done: make(chan struct{})}
	t.seen[address] = e
	t.mu.Unlock()
	e.verdict, e.at = t.fetch(ctx, address), time.Now()
	close(e.done)
	return e.verdict
}

func (e *templateEntry) stale() bool {
	select {
	case <-e.done:
		return e.verdict != templateGood && e.verdict != templateBadVariables && time.Since(e.at) > badVerdictLife
	default:
		return false
	}
}

// fetch goes on when the call that began it is gone, for others may wait for it too; it ends with the platform.
func (t *templateChecker) fetch(ctx context.Context, address string) verdict {
	ctx, cancel := context.WithCancel(context.WithoutCancel(ctx))
	defer cancel()
	go func() {
		select {
		case <-t.stop:
			cancel()
		case <-ctx.Done():
		}
	}()
	if u, err := url.Parse(address); err != nil || u.Host == "" {
		return templateNotURL
	}
	request, err := http.NewRequestWithContext(ctx, http.MethodGet, address, http.NoBody)
	if err != nil {
		return templateNotURL
	}
	response, err := t.client.Do(request)
	if err != nil {
		return verdictOf(err)
	}
	defer func() { _ = response.Body.Close() }()
	if response.StatusCode != http.StatusOK {
		return templateMissing
	}
	body, err := io.ReadAll(io.LimitReader(response.Body, templateLimit))
	if err != nil {
		return verdictOf(err)
	}
	return judgeZip(body)
}

func verdictOf(err error) verdict {
	var timeout interface{ Timeout() bool }
	if errors.As(err, &timeout) && timeout.Timeout() {
		return templateSilent
	}
	return templateRefused
}

// judgeZip wants index.html at the root, with known variables only.
func judgeZip(body []byte) verdict {
	archive, err := zip.NewReader(bytes.NewReader(body), int64(len(body)))
	if err != nil {
		return templateBroken
	}
	for _, file := range archive.File {
		if file.Name != "index.html" {
			continue
		}
		page, err := readZipped(file)
		if err != nil {
			return templateBroken
		}
		for _, name := range variable.FindAllString(page, -1) {
			if !strings.Contains(knownVariables, name+" ") {
				return templateBadVariables
			}
		}
		return templateGood
	}
	return templateNoIndex
}

func readZipped(file *zip.File) (string, error) {
	opened, err := file.Open()
	if err != nil {
		return "", err
	}
	defer func() { _ = opened.Close() }()
	page, err := io.ReadAll(io.LimitReader(opened, templateLimit))
	return string(page), err
}

var variable = regexp.MustCompile(`\$[A-Za-z][A-Za-z0-9]*`)

// knownVariables are those of any era: which of them an era lacks has not been seen to matter.
const knownVariables = "$recipientName $courseName $title $qrCodeImage $dated $issuedDate $signatory0Image " +
	"$signatory0Designation $certificateName $certificateDescription $recipientId $expiryDate $signatory1Image " +
	"$signatory1Designation $issuerName "

// printQueue is the one worker that generate shares in 3.9.0: a template that never answers stops every generate for
// as long as it hangs.
type printQueue struct {
	idle time.Duration
	stop <-chan struct{}

	mu      sync.Mutex
	hanging int
	free    chan struct{} // closed when nothing hangs any more
}

func newPrintQueue(idle time.Duration, stop <-chan struct{}) *printQueue {
	return &printQueue{idle: idle, stop: stop}
}

// hang holds the worker until the server drops the connection.
func (q *printQueue) hang() {
	q.mu.Lock()
	if q.hanging == 0 {
		q.free = make(chan struct{})
	}
	q.hanging++
	q.mu.Unlock()
	q.wait(nil)
	q.mu.Lock()
	defer q.mu.Unlock()
	q.hanging--
	if q.hanging == 0 {
		close(q.free)
	}
}

// pass waits for the worker and says whether it came free before the server dropped the connection.
func (q *printQueue) pass() bool {
	q.mu.Lock()
	hanging, free := q.hanging, q.free
	q.mu.Unlock()
	return hanging == 0 || q.wait(free)
}

func (q *printQueue) wait(free <-chan struct{}) bool {
	timer := time.NewTimer(q.idle)
	defer timer.Stop()
	select {
	case <-free:
		return true
	case <-timer.C:
	case <-q.stop:
	}
	return false
}
