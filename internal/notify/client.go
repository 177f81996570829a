// Package notify is the edge that announces certificates by e-mail and SMS,
// through the learner service's notification call.
//
// It promises the members of the course's notifyTemplate as they stand there,
// and a reason of its own for learners without an address. It leaves to the
// core whom to tell by which channel, and how often: every call that the
// service accepts sends again, and a success means accepted, not delivered.
package notify

import (
	"context"
	"net/http"
	"time"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// DefaultTimeout of a call: the service gives up by itself after 30 s, and a
// shorter wait would send a message twice.
const DefaultTimeout = 35 * time.Second

// DefaultSMSText is the message when none is set. Both placeholders are
// replaced literally.
const DefaultSMSText = "Congratulations! Your certificate for " + placeholderTraining +
	", completed on " + placeholderDate + ", is ready. Sign in to your profile to download it."

// Config says how to reach the notifier.
type Config struct {
	URL     string        // base; usually the learner service's
	Timeout time.Duration // of one call; 0 = [DefaultTimeout]
	HTTP    *http.Client  // shared by the edges
	Gate    *sunbird.Gate // before the service, for all its clients; nil = none
	SMSText string        // with @@TRAINING_NAME@@ and @@HELD_DATE@@; empty = [DefaultSMSText]
}

// Client calls the notifier.
type Client struct {
	http    *sunbird.Client
	smsText string
}

var _ issue.Notifier = (*Client)(nil)

// New checks the configuration.
func New(c Config) (*Client, error) {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	if c.SMSText == "" {
		c.SMSText = DefaultSMSText
	}
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "notifier", URL: c.URL, Timeout: c.Timeout, HTTP: c.HTTP, Gate: c.Gate,
	})
	if err != nil {
		return nil, err
	}
	return &Client{http: client, smsText: c.SMSText}, nil
}

// Email sends the e-mail (POST /v1/notification/email).
//
// The error is an [*issue.Failure], or wraps that of ctx when it has ended. A
// learner without an address is [issue.ReasonNoAddress].
func (c *Client) Email(ctx context.Context, n issue.Notification) error {
	return c.send(ctx, n, emailMembers(n))
}

// SMS sends the text message, by the same call and with the same errors.
func (c *Client) SMS(ctx context.Context, n issue.Notification) error {
	return c.send(ctx, n, smsMembers(n, c.smsText))
}

func (c *Client) send(ctx context.Context, n issue.Notification, members map[string]any) error {
	body, err := requestBody(members)
	if err != nil {
		return &issue.Failure{
			Verdict: issue.Permanent, Reason: issue.ReasonTemplate, Message: "the notifyTemplate cannot be written", Err: err,
		}
	}
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodPost, Path: "/v1/notification/email", Body: body,
		Sent: func() []string { return []string{string(n.Learner), n.GivenName} },
	})
	if err != nil {
		return err
	}
	return accepted(answer)
}
