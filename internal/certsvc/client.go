// Package certsvc is the edge to cert-service, which draws, signs and stores
// certificates.
//
// It promises one body that the service takes in every era, a certificate only
// where the service really gave one, the signed assertion byte for byte, and a
// verdict on every failure, by the service's words where its status says
// nothing. It leaves to the core what a failure means for the template, and
// that each call makes another certificate: the service knows no repetition.
package certsvc

import (
	"context"
	"fmt"
	"net/http"
	"time"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/sunbird"
)

// DefaultTimeout of a call: the service itself closes the connection after 75 s
// in its later years, and a shorter wait would leave certificates behind that
// nobody knows of.
const DefaultTimeout = 80 * time.Second

// Config says how to reach cert-service.
type Config struct {
	URL     string        // base, such as http://cert-service:9000
	Timeout time.Duration // of one call; 0 = [DefaultTimeout]
	HTTP    *http.Client  // shared by the edges
	Gate    *sunbird.Gate // before the service, for all its clients; nil = none
	// BasePath stands before the addresses of the files of a certificate, such
	// as https://example.org/certs; empty = as cert-service is set up itself.
	BasePath string
}

// Client calls cert-service.
type Client struct {
	http     *sunbird.Client
	basePath string
}

// New checks the configuration.
func New(c Config) (*Client, error) {
	if c.Timeout == 0 {
		c.Timeout = DefaultTimeout
	}
	client, err := sunbird.NewClient(sunbird.Config{
		Service: "cert-service", URL: c.URL, Timeout: c.Timeout, HTTP: c.HTTP, Gate: c.Gate,
	})
	if err != nil {
		return nil, err
	}
	var basePath string
	if c.BasePath != "" {
		if basePath, err = sunbird.ParseURL(c.BasePath); err != nil {
			return nil, fmt.Errorf("base path of certificates: %w", err)
		}
	}
	return &Client{http: client, basePath: basePath}, nil
}

// Generate makes one certificate (POST /v1/certs/generate). Every call makes
// another one, with another id; one whose answer was lost is never seen, since
// nothing points to it.
//
// The error is an [*issue.Failure], or wraps that of ctx when it has ended.
func (c *Client) Generate(ctx context.Context, r issue.GenerateRequest) (issue.Certificate, error) {
	body, err := generateBody(r, c.basePath)
	if err != nil {
		return issue.Certificate{}, &issue.Failure{
			Verdict: issue.Permanent, Reason: issue.ReasonTemplate, Message: "the request cannot be written", Err: err,
		}
	}
	answer, err := c.http.Do(ctx, sunbird.Call{
		Method: http.MethodPost, Path: "/v1/certs/generate", Body: body,
		Sent: func() []string { return []string{r.Recipient.FullName(), string(r.Recipient.ID)} },
		// The usual cause of no reply is one template that hangs, not a service that
		// is away (it answers nothing for 75 s, then closes the connection).
		Suspect: r.Template.HTMLTemplate,
	})
	if err != nil {
		return issue.Certificate{}, err
	}
	if answer.Status != http.StatusOK {
		return issue.Certificate{}, classify(answer)
	}
	certificate, err := readCertificate(answer, r.Recipient.ID)
	if err != nil {
		return issue.Certificate{}, answer.Bad(err)
	}
	return certificate, nil
}
