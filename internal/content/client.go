// Package content is the edge to the content service, which has the courses and
// their certificate templates.
//
// It promises to understand certTemplate in every form the platform has kept it
// in (list, single map, JSON text, absent), and to leave out or refuse what
// cannot be a template rather than to guess. It leaves to cert-service whether a
// template is complete.
package content

import (
	"context"
	"net/http"
	"net/url"
	"time"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// DefaultTimeout of a call.
const DefaultTimeout = 15 * time.Second

// Config says how to reach the content service.
type Config struct {
	// URL is what stands before /content/v3/read/, such as
	// http://content-service:9000 or, in 2019, http://host:8080/learning-service.
	URL     string
	Timeout time.Duration // of one call; 0 = [DefaultTimeout]
	HTTP    *http.Client  // shared by the edges
	Gate    *sunbird.Gate // before the service, for all its clients; nil = none
}

// Client calls the content service.
type Client struct{ http *sunbird.Client }

var _ issue.Courses = (*Client)(nil)

// New checks the configuration.
func New(c Config) (*Client, error) {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "content-service", URL: c.URL, Timeout: c.Timeout, HTTP: c.HTTP, Gate: c.Gate,
	})
	if err != nil {
		return nil, err
	}
	return &Client{http: client}, nil
}

// Course reads a course's name and templates (GET /content/v3/read/{id}), as
// published.
//
// The error is an [*issue.Failure], or wraps that of ctx when it has ended: an
// unknown course is permanent with [issue.ReasonUnknownCourse], a certTemplate
// that cannot be read permanent with [issue.ReasonTemplate].
func (c *Client) Course(ctx context.Context, id issue.CourseID) (issue.Course, error) {
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodGet,
		Path:   "/content/v3/read/" + url.PathEscape(string(id)) + "?fields=name,certTemplate",
	})
	if err != nil {
		return issue.Course{}, err
	}
	if answer.Status != http.StatusOK {
		return issue.Course{}, classify(answer)
	}
	return readCourse(answer, id)
}
