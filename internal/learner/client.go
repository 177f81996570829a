// Package learner is the edge to the learner service: it registers certificates
// and looks learners up.
//
// It promises that a registration is the same bytes each time it is sent, with
// the signed assertion unchanged inside; that one which the service already has
// is a success; and that lookups made at the same time share calls without
// harming one another. It leaves to the core which certificate a registration
// replaces, and what to do about a learner whom the search does not show yet.
package learner

import (
	"context"
	"net/http"
	"time"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// DefaultTimeout of a call: the service gives up by itself after 30 s.
const DefaultTimeout = 35 * time.Second

// Config says how to reach the learner service.
type Config struct {
	URL     string        // base, such as http://learner-service:9000
	Timeout time.Duration // of one call; 0 = [DefaultTimeout]
	HTTP    *http.Client  // shared by the edges
	Gate    *sunbird.Gate // before the service, for all its clients; nil = none
}

// Client calls the learner service.
type Client struct{ http *sunbird.Client }

// New checks the configuration.
func New(c Config) (*Client, error) {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "learner-service", URL: c.URL, Timeout: c.Timeout, HTTP: c.HTTP, Gate: c.Gate,
	})
	if err != nil {
		return nil, err
	}
	return &Client{http: client}, nil
}

// Register tells the platform that a certificate belongs to a learner (POST
// /private/user/v1/certs/add). Repeating it does no harm: the service knows a
// certificate by its id.
//
// The error is an [*issue.Failure], or wraps that of ctx when it has ended. A
// refused OldID is [issue.ReasonConflict] and wraps [issue.ErrOldID]; so is, without
// that, an id that is somebody else's.
func (c *Client) Register(ctx context.Context, r issue.Registration) error {
	body, err := registerBody(r)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodPost, Path: "/private/user/v1/certs/add", Body: body, Repeatable: true,
		Sent: func() []string {
			return []string{string(r.Learner), r.Certificate.AccessCode, nameInside(r.Certificate.JSONData)}
		},
	})
	if err != nil {
		return err
	}
	there, err := registered(answer)
	if there && !r.Repeated {
		return c.Validate(ctx, r)
	}
	return err
}

// Validate looks whose certificate it is that the service has under an id (POST
// /private/user/v1/certs/validate). Whoever made it knows its access code; it is
// ours when course and batch are, too.
//
// The error is an [*issue.Failure], or wraps that of ctx. One that is not there,
// or not ours, is [issue.ReasonConflict] and wraps [issue.ErrUnconfirmed].
func (c *Client) Validate(ctx context.Context, r issue.Registration) error {
	body, err := validateBody(r.Certificate)
	if err != nil {
		return err
	}
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodPost, Path: "/private/user/v1/certs/validate", Body: body, Repeatable: true,
		Sent: func() []string { return []string{r.Certificate.AccessCode} },
	})
	if err != nil {
		return err
	}
	return validated(answer, r)
}
