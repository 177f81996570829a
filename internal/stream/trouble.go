package stream

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strings"
	"syscall"

	"github.com/segmentio/kafka-go"
)

// ErrRefused says that the brokers refused our credentials: an outage until
// somebody puts them right, here or there.
var ErrRefused = errors.New("authentication refused")

// connectError says in one line why a connection to a broker was not made, and
// what to check. Nothing was sent on it.
type connectError struct {
	text  string
	cause error
}

func (e *connectError) Error() string { return e.text }
func (e *connectError) Unwrap() error { return e.cause }

// failed names the broker beside its text, unless it is the only one and named
// by [Connection.explain] anyway.
func (d *door) failed(address, text string, cause error) error {
	if address != d.brokers {
		text = "broker " + address + ": " + text
	}
	return &connectError{text: text, cause: cause}
}

const (
	refusedText = "authentication refused: check KAFKA_USERNAME and KAFKA_PASSWORD"
	silent      = "the broker accepts the connection and does not answer: check the port in KAFKA_BROKERS, and KAFKA_TLS"
	noTLS       = "the broker speaks no TLS on this port: check KAFKA_TLS and the port in KAFKA_BROKERS"
	mayNoTLS    = "the broker does not answer the TLS handshake; it may speak no TLS on this port: check KAFKA_TLS and the port in KAFKA_BROKERS"
	checkPair   = "check KAFKA_CERT_FILE and KAFKA_KEY_FILE"
)

// unreachable is for a connection that the network does not make.
func unreachable(err error) string {
	var network *net.OpError
	reason := err
	if errors.As(err, &network) {
		reason = network.Err // without the address, which is named already
	}
	switch {
	case errors.Is(err, syscall.ECONNREFUSED):
		reason = errors.New("connection refused")
	case timedOut(err):
		reason = fmt.Errorf("no connection within %v", dialTimeout)
	}
	return fmt.Sprintf("unreachable (%v): check KAFKA_BROKERS, and what the brokers advertise", reason)
}

// tlsTrouble is for a handshake that did not succeed.
func tlsTrouble(err error) string {
	var (
		noRecord  tls.RecordHeaderError
		authority x509.UnknownAuthorityError
		host      x509.HostnameError
	)
	switch {
	case errors.As(err, &noRecord):
		return noTLS
	case errors.As(err, &authority):
		return "the broker's certificate is from an unknown authority: check KAFKA_CA_FILE"
	case errors.As(err, &host):
		return fmt.Sprintf("the broker's certificate has another name (%v): check KAFKA_BROKERS, and what the brokers advertise", host)
	case alerted(err):
		return fmt.Sprintf("the broker refused the TLS handshake (%v): %s", err, checkPair)
	case hungUp(err), timedOut(err):
		return mayNoTLS
	default:
		return fmt.Sprintf("the TLS handshake failed (%v): check KAFKA_CA_FILE and the broker's certificate", err)
	}
}

// greetTrouble is for the first requests on a connection.
func (d *door) greetTrouble(err error) string {
	switch {
	case timedOut(err):
		return silent
	case d.tls == nil && hungUp(err):
		return "the broker closed the connection at once; it may ask for TLS on this port: check KAFKA_TLS"
	case alerted(err):
		return fmt.Sprintf("the broker refused our certificate (%v): %s", err, checkPair)
	case hungUp(err):
		return "the broker closed the connection after the TLS handshake; it may ask for a certificate of ours: " + checkPair
	default:
		return fmt.Sprintf("no answer that makes sense (%v): check KAFKA_BROKERS and KAFKA_TLS", err)
	}
}

// handshakeTrouble is for a broker that does not go into our mechanism.
func handshakeTrouble(err error, mechanism string, offers []string) string {
	switch {
	case errors.Is(err, kafka.UnsupportedSASLMechanism):
		return fmt.Sprintf("the broker does not take %s, but %s: check KAFKA_SASL_MECHANISM", mechanism, strings.Join(offers, ", "))
	case errors.Is(err, kafka.IllegalSASLState):
		return "the broker takes no credentials on this port: check KAFKA_SASL_MECHANISM and the port in KAFKA_BROKERS"
	default:
		return fmt.Sprintf("the broker does not begin authentication (%v): check KAFKA_SASL_MECHANISM", err)
	}
}

// alerted says that the other side ended TLS with a reason.
func alerted(err error) bool {
	var network *net.OpError
	return errors.As(err, &network) && network.Op == "remote error"
}

// hungUp says that the other side closed the connection without one.
func hungUp(err error) bool {
	return slices.ContainsFunc([]error{io.EOF, io.ErrUnexpectedEOF, syscall.ECONNRESET, syscall.EPIPE},
		func(target error) bool { return errors.Is(err, target) })
}

func timedOut(err error) bool {
	var network net.Error
	return errors.Is(err, os.ErrDeadlineExceeded) || errors.As(err, &network) && network.Timeout()
}

// hint says what a hang-up in the midst of things may mean, other than a broker
// that stops: one that asks for what we do not give.
func (d *door) hint() string {
	switch {
	case d.sasl != nil:
		return "it may be stopping"
	case d.tls != nil:
		return "it is stopping, or asks for credentials (KAFKA_SASL_MECHANISM)"
	default:
		return "it is stopping, or asks for TLS (KAFKA_TLS) or credentials (KAFKA_SASL_MECHANISM)"
	}
}

// explain puts an error in one line that names the brokers. It leaves out what
// the library wraps around an error of ours, and translates its "EOF".
func (c *Connection) explain(err error) error {
	if err == nil {
		return nil
	}
	var failed *connectError
	switch {
	case errors.As(err, &failed):
		err = failed
	case hungUp(err):
		err = fmt.Errorf("the broker closed the connection (%w); %s", err, c.door.hint())
	}
	return fmt.Errorf("kafka at %s: %w", c.door.brokers, err)
}
