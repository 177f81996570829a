// Package elasticsearch reads enrolments and batches from the platform's search
// index: user-courses and course-batch, as they stood until 2020. (Later
// platforms no longer keep user-courses up to date; they have other sources.)
//
// It promises that whatever goes wrong is an error that wraps
// [issue.ErrUnavailable], never "nobody" or "no such batch": a search that timed
// out, lost a shard or met a missing index counts as gone wrong. It reads a
// batch of any size page by page. It leaves to the core who is eligible; what a
// query can tell (active, status) it asks for, the rest goes out as stored.
//
// The index lags behind the platform by its refresh, a few seconds.
package elasticsearch

import (
	"context"
	"errors"
	"fmt"
	"net/http"
	"net/url"
	"strings"
	"time"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

const (
	// DefaultTimeout of a search: a page of a large batch takes some seconds on
	// a busy cluster.
	DefaultTimeout = 30 * time.Second
	// MaxLearners is how many learners one query may name
	// (index.max_terms_count).
	MaxLearners = 65536

	defaultUserCourses = "user-courses"
	defaultCourseBatch = "course-batch"
)

// Config says how to reach the index.
type Config struct {
	URL         string        // base, such as http://elasticsearch:9200; may hold user and password
	Timeout     time.Duration // of one search; 0 = [DefaultTimeout]
	HTTP        *http.Client  // shared by the edges
	Gate        *sunbird.Gate // before the service, for all its clients; nil = none
	UserCourses string        // index or alias of enrolments; empty = user-courses
	CourseBatch string        // index or alias of batches; empty = course-batch
}

// Client searches the index.
type Client struct {
	http        *sunbird.Client
	userCourses string // escaped for a path
	courseBatch string
}

var (
	_ issue.Batches           = (*Client)(nil)
	_ issue.EligibleCounter   = (*Client)(nil)
	_ issue.EnrolmentPager    = (*Client)(nil)
	_ issue.LearnerEnrolments = (*Client)(nil)
)

// New checks the configuration.
func New(c Config) (*Client, error) {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "elasticsearch", URL: c.URL, Timeout: c.Timeout, HTTP: c.HTTP, Gate: c.Gate,
	})
	if err != nil {
		return nil, err
	}
	if c.UserCourses == "" {
		c.UserCourses = defaultUserCourses
	}
	if c.CourseBatch == "" {
		c.CourseBatch = defaultCourseBatch
	}
	return &Client{
		http: client, userCourses: url.PathEscape(c.UserCourses), courseBatch: url.PathEscape(c.CourseBatch),
	}, nil
}

// Batch reads a batch (GET /course-batch/_doc/{id}); false = it does not exist.
func (c *Client) Batch(ctx context.Context, id issue.BatchID) (issue.Batch, bool, error) {
	// The platform's ids need no escaping; what does is no batch, and the index
	// would answer with an error that looks like trouble of its own.
	if id == "" || url.PathEscape(string(id)) != string(id) || strings.Trim(string(id), ".") == "" {
		return issue.Batch{}, false, nil
	}
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodGet, Path: "/" + c.courseBatch + "/_doc/" + url.PathEscape(string(id)),
	})
	if err != nil {
		return issue.Batch{}, false, unavailable(err)
	}
	return readBatch(answer, id)
}

// Count counts the learners of a batch, certificate by certificate being the
// same count: which of them hold a certificate already is for the core to judge,
// so their presence makes the count an estimate. Every skip reason is in the
// answer. (POST /user-courses/_search, one query.)
func (c *Client) Count(
	ctx context.Context, batch issue.BatchID, filter issue.Filter, _ []string,
) (issue.EligibleCount, error) {
	if err := checkLearners(filter); err != nil {
		return issue.EligibleCount{}, err
	}
	answer, err := c.search(ctx, countBody(batch, filter))
	if err != nil {
		return issue.EligibleCount{}, err
	}
	return answer.count(filter)
}

// Page reads enrolments of a batch that are active and have a wanted status, in
// the order of their learner ids, starting after the cursor ("" = from the
// start). The cursor is the last learner id of the page before as the index
// sorts it, so it outlives the search and the cluster's restarts.
func (c *Client) Page(
	ctx context.Context, batch issue.BatchID, filter issue.Filter, cursor string, size int,
) (issue.EnrolmentPage, error) {
	if size < 1 {
		return issue.EnrolmentPage{}, fmt.Errorf("a page of %d enrolments cannot be read", size)
	}
	if err := checkLearners(filter); err != nil {
		return issue.EnrolmentPage{}, err
	}
	answer, err := c.search(ctx, pageBody(batch, filter, cursor, size))
	if err != nil {
		return issue.EnrolmentPage{}, err
	}
	return answer.page(size)
}

// Learner reads one learner's enrolment, whatever its status; false = not
// enrolled.
func (c *Client) Learner(
	ctx context.Context, batch issue.BatchID, learner issue.LearnerID,
) (issue.Enrolment, bool, error) {
	answer, err := c.search(ctx, learnerBody(batch, learner))
	if err != nil {
		return issue.Enrolment{}, false, err
	}
	return answer.enrolmentOf(learner)
}

// Ping tells whether both indexes answer: the calls of [Client.Batch] and
// [Client.Learner], for ids that nobody has.
func (c *Client) Ping(ctx context.Context) error {
	const nobody = "ping"
	if _, _, err := c.Batch(ctx, nobody); err != nil {
		return err
	}
	_, _, err := c.Learner(ctx, nobody, nobody)
	return err
}

func (c *Client) search(ctx context.Context, body query) (searchAnswer, error) {
	encoded, err := sunbird.JSON(body)
	if err != nil {
		return searchAnswer{}, fmt.Errorf("write the search: %w", err)
	}
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodPost, Path: "/" + c.userCourses + "/_search", Body: encoded, Repeatable: true,
	})
	if err != nil {
		return searchAnswer{}, unavailable(err)
	}
	return readSearch(answer)
}

// ErrTooManyLearners refuses a filter that names more learners than one query
// can.
var ErrTooManyLearners = errors.New("too many learners for one search")

func checkLearners(filter issue.Filter) error {
	if n := len(filter.Learners); n > MaxLearners {
		return fmt.Errorf("%w: %w", ErrTooManyLearners, issue.InvalidValueError{
			Parameter: "userIds", Value: fmt.Sprintf("of %d ids (at most %d)", n, MaxLearners),
		})
	}
	return nil
}

// lowered are the distinct learner ids as the index has them: the .raw fields
// hold every text in lower case.
func lowered(learners []issue.LearnerID) []string {
	seen := make(map[string]bool, len(learners))
	ids := make([]string, 0, len(learners))
	for _, learner := range learners {
		id := strings.ToLower(string(learner))
		if !seen[id] {
			seen[id] = true
			ids = append(ids, id)
		}
	}
	return ids
}
