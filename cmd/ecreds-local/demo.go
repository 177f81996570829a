package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/ecreds/issuer/internal/simulator"
)

// issuePath is the call as the platform's handbook gives it to officers.
const issuePath = "/api/course/batch/cert/v1/issue"

// handbookBody is the body of that call, word for word but for the ids.
const handbookBody = `{"request":{"batchId":"%s","courseId":"%s","certificate":"%s","filters":{"status":"2"}}}`

// demonstrate issues the configured batch over HTTP, shows its progress and a
// summary, and stays until ctx ends unless it is to be done once.
func (l *local) demonstrate(ctx context.Context, out io.Writer) error {
	err := l.awaitReady(ctx)
	if err == nil && l.config.Batch != "" {
		err = l.issueBatch(ctx, out)
	}
	if err == nil && !l.config.Once {
		l.suggest(out)
		<-ctx.Done()
	}
	if ctx.Err() == nil {
		return err
	}
	fmt.Fprintln(out, "stopping: work in flight is finished first")
	if l.config.Once {
		return errors.New("told to stop before the end")
	}
	return nil
}

// startTimeout is how long the parts may take until they are ready.
const startTimeout = 30 * time.Second

func (l *local) awaitReady(ctx context.Context) error {
	ctx, cancel := context.WithTimeoutCause(ctx, startTimeout, errors.New("the programs did not become ready in time"))
	defer cancel()
	for {
		if err := l.call(ctx, http.MethodGet, "/ready", "", nil); err == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return context.Cause(ctx)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

func (l *local) issueBatch(ctx context.Context, out io.Writer) error {
	body := fmt.Sprintf(handbookBody, l.config.Batch, l.config.Course, simulator.DemoCertificate)
	fmt.Fprintf(out, "issuing batch %s\n\n%s\n\n", l.config.Batch, l.curl(body))
	began := time.Now()
	var accepted struct {
		Result struct {
			JobID    string `json:"jobId"`
			Eligible int    `json:"eligible"`
			Estimate bool   `json:"estimate"`
			Status   string `json:"status"`
		} `json:"result"`
	}
	if err := l.call(ctx, http.MethodPost, issuePath, body, &accepted); err != nil {
		return fmt.Errorf("issue batch %s: %w", l.config.Batch, err)
	}
	fmt.Fprintf(out, "  %s\n", accepted.Result.Status)
	if accepted.Result.JobID == "" {
		return nil
	}
	about := ""
	if accepted.Result.Estimate {
		about = "about "
	}
	fmt.Fprintf(out, "  job %s, %s%d eligible\n\n", accepted.Result.JobID, about, accepted.Result.Eligible)
	finished, err := l.watch(ctx, out, accepted.Result.JobID)
	if err != nil {
		return err
	}
	if err := l.summarise(ctx, out, finished, time.Since(began)); err != nil {
		return err
	}
	if missing := finished.Eligible - finished.Counts["issued"]; missing > 0 {
		return fmt.Errorf("%d of %d eligible learners were not issued", missing, finished.Eligible)
	}
	return nil
}

// job is what the summary needs of the API's answer.
type job struct {
	JobID     string         `json:"jobId"`
	Eligible  int            `json:"eligible"`
	Counts    map[string]int `json:"counts"`
	SkippedBy map[string]int `json:"skippedBy"`
	FailedBy  map[string]int `json:"failedBy"`
	Done      bool           `json:"done"`
}

func (l *local) job(ctx context.Context, id string) (job, error) {
	var answer struct {
		Job job `json:"job"`
	}
	err := l.call(ctx, http.MethodGet, "/v1/course/batch/cert/jobs/"+id, "", &answer)
	return answer.Job, err
}

// watchEvery is how often progress is read.
const watchEvery = 200 * time.Millisecond

// watch shows progress until the job is done.
func (l *local) watch(ctx context.Context, out io.Writer, id string) (job, error) {
	show := newProgress(out)
	defer show.end()
	for {
		j, err := l.job(ctx, id)
		if err != nil {
			return j, fmt.Errorf("read job %s: %w", id, err)
		}
		show.update(j)
		if j.Done {
			return j, nil
		}
		select {
		case <-ctx.Done():
			return j, ctx.Err()
		case <-time.After(watchEvery):
		}
	}
}

// summarise tells what became of everybody.
func (l *local) summarise(ctx context.Context, out io.Writer, j job, took time.Duration) error {
	issued := j.Counts["issued"]
	if before := j.SkippedBy["already_issued"]; j.Eligible == 0 && before > 0 {
		fmt.Fprintf(out, "\n  Everybody who completed this batch was issued before (%d learners): nobody gets a second certificate.\n"+
			"  Remove the folder %s to begin afresh.\n", before, l.folder.path)
		return nil
	}
	fmt.Fprintf(out, "\n  issued         %d of %d eligible in %.1f s", issued, j.Eligible, took.Seconds())
	if issued > 0 {
		fmt.Fprintf(out, " (%.0f a second)", float64(issued)/took.Seconds())
	}
	fmt.Fprintf(out, "\n  skipped        %s\n  dead-lettered  %s\n", reasons(j.SkippedBy), reasons(j.FailedBy))
	url, err := l.finishedCertificate(ctx, j.JobID)
	if err != nil || url == "" {
		return err
	}
	fmt.Fprintf(out, "  a certificate  %s\n", url)
	return nil
}

// reasons prints counts by reason, largest first, zeros left out.
func reasons(counts map[string]int) string {
	var names []string
	for name, n := range counts {
		if n > 0 {
			names = append(names, name)
		}
	}
	slices.SortFunc(names, func(a, b string) int {
		if counts[a] != counts[b] {
			return counts[b] - counts[a]
		}
		return strings.Compare(a, b)
	})
	if len(names) == 0 {
		return "nobody"
	}
	total := 0
	for i, name := range names {
		total += counts[name]
		names[i] = fmt.Sprintf("%s %d", name, counts[name])
	}
	return fmt.Sprintf("%d (%s)", total, strings.Join(names, ", "))
}

// finishedCertificate finds the address of a certificate that the job issued;
// "" = it issued none.
func (l *local) finishedCertificate(ctx context.Context, id string) (string, error) {
	var answer struct {
		Learners []struct {
			CertificateID string `json:"certificateId"`
		} `json:"learners"`
	}
	err := l.call(ctx, http.MethodGet, "/v1/course/batch/cert/jobs/"+id+"/learners?state=notified&limit=1", "", &answer)
	if err != nil || len(answer.Learners) == 0 {
		return "", err
	}
	for _, r := range l.platform.Registered() {
		if r.ID == answer.Learners[0].CertificateID {
			return l.platform.URLs().Files + "/certs/" + strings.TrimPrefix(r.PDFURL, l.platform.URLs().Files+"/certs/"), nil
		}
	}
	return "", nil
}

// suggest shows how to go on.
func (l *local) suggest(out io.Writer) {
	body := fmt.Sprintf(handbookBody, simulator.LargeBatch, simulator.LargeCourse, simulator.DemoCertificate)
	fmt.Fprintf(out, "\nissue the next batch (%d learners):\n\n%s\n\nand watch it:\n\n"+
		"curl -s \"http://%s/v1/course/batch/cert/jobs/$JOB\"    # the jobId of the answer\n\nCtrl-C stops everything; data stays in %s\n",
		simulator.LargeBatchSize, l.curl(body), l.api.Addr(), l.folder.path)
}

func (l *local) curl(body string) string {
	return fmt.Sprintf("curl -s -X POST http://%s%s \\\n  -H 'Content-Type: application/json' \\\n  -d '%s'",
		l.api.Addr(), issuePath, body)
}

// call speaks to the API as any client would. It decodes the envelope's result
// into result; an answer other than 200 is an error with its errmsg.
func (l *local) call(ctx context.Context, method, path, body string, result any) error {
	request, err := http.NewRequestWithContext(ctx, method, "http://"+l.api.Addr()+path, strings.NewReader(body))
	if err != nil {
		return err
	}
	if body != "" {
		request.Header.Set("Content-Type", "application/json")
	}
	response, err := l.http.Do(request)
	if err != nil {
		return err
	}
	defer func() { _ = response.Body.Close() }()
	var envelope struct {
		Params struct {
			ErrMsg string `json:"errmsg"`
		} `json:"params"`
		Result json.RawMessage `json:"result"`
	}
	if err := json.NewDecoder(response.Body).Decode(&envelope); err != nil {
		return fmt.Errorf("read the answer: %w", err)
	}
	if response.StatusCode != http.StatusOK {
		return fmt.Errorf("HTTP %d: %s", response.StatusCode, envelope.Params.ErrMsg)
	}
	if result == nil {
		return nil
	}
	return json.Unmarshal(envelope.Result, result)
}
