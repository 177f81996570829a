package stream

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"strconv"
	"strings"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/segmentio/kafka-go/protocol"
	"github.com/segmentio/kafka-go/protocol/apiversions"
	"github.com/segmentio/kafka-go/protocol/saslauthenticate"
	"github.com/segmentio/kafka-go/protocol/saslhandshake"
	"github.com/segmentio/kafka-go/sasl"
	"github.com/segmentio/kafka-go/sasl/plain"
	"github.com/segmentio/kafka-go/sasl/scram"
)

// Mechanism is how a connection proves who it is.
type Mechanism = sasl.Mechanism

// SASL makes a mechanism by the name that Kafka knows it by: PLAIN,
// SCRAM-SHA-256 or SCRAM-SHA-512. Its errors hold neither of the credentials.
func SASL(name, username, password string) (Mechanism, error) {
	algorithm := scram.SHA512
	switch name {
	case "PLAIN":
		if strings.ContainsRune(username+password, 0) {
			return nil, errors.New("user name or password has a character that PLAIN does not take")
		}
		return plain.Mechanism{Username: username, Password: password}, nil
	case scram.SHA256.Name():
		algorithm = scram.SHA256
	case scram.SHA512.Name():
	default:
		return nil, errors.New("it must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512")
	}
	mechanism, err := scram.Mechanism(algorithm, username, password)
	if err != nil { // which quotes the password
		return nil, fmt.Errorf("user name or password has a character that %s does not take", name)
	}
	return mechanism, nil
}

// door opens connections to brokers: the network, TLS, and who we are. The
// client library would do the latter two by itself, but its dialer and its
// transport do them apart, the transport without a time limit, and an error of
// theirs does not tell a connection that never was from one that broke, which
// decides whether a record may have been written.
type door struct {
	brokers  string
	clientID string
	tls      *tls.Config // nil = no TLS
	sasl     Mechanism   // nil = no credentials
}

// open is the dial function of dialer and transport. Its error is a
// [*connectError].
func (d *door) open(ctx context.Context, network, address string) (net.Conn, error) {
	limited, cancel := context.WithTimeout(ctx, dialTimeout)
	defer cancel()
	conn, err := d.connect(limited, network, address)
	if err != nil && errors.Is(ctx.Err(), context.Canceled) {
		err = d.failed(address, "connecting was cut short", ctx.Err())
	}
	return conn, err
}

func (d *door) connect(ctx context.Context, network, address string) (net.Conn, error) {
	raw, err := new(net.Dialer).DialContext(ctx, network, address)
	if err != nil {
		return nil, d.failed(address, unreachable(err), err)
	}
	if d.tls == nil && d.sasl == nil {
		return raw, nil
	}
	conn, err := d.secure(ctx, raw, address)
	if err != nil {
		_ = raw.Close() // what went wrong is known already
	}
	return conn, err
}

// secure does what the library expects to be done: it takes the connection as
// a plain one from here on.
func (d *door) secure(ctx context.Context, conn net.Conn, address string) (net.Conn, error) {
	if d.tls != nil {
		config := d.tls.Clone()
		if config.ServerName == "" {
			config.ServerName = hostOf(address)
		}
		secured := tls.Client(conn, config)
		if err := secured.HandshakeContext(ctx); err != nil {
			return nil, d.failed(address, tlsTrouble(err), err)
		}
		conn = secured
	}
	// What is waited for below ends with ctx, and no deadline outlives it.
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	err := d.introduce(ctx, conn, address)
	if !stop() && err == nil {
		err = d.failed(address, silent, ctx.Err())
	}
	if err != nil {
		return nil, err
	}
	return conn, nil
}

// introduce asks the broker something that needs no credentials, then proves
// who we are. With TLS 1.3 the broker refuses a certificate only after the
// handshake, so without the question it would be met by some later request.
func (d *door) introduce(ctx context.Context, conn net.Conn, address string) error {
	broker := protocol.NewConn(conn, d.clientID)
	// These versions are known to all brokers since Kafka 1.0. Version 1 of the
	// handshake has the rest travel in requests, with a code for each refusal.
	broker.SetVersions(map[protocol.ApiKey]int16{protocol.SaslHandshake: 1, protocol.SaslAuthenticate: 0})
	if _, err := broker.RoundTrip(&apiversions.Request{}); err != nil {
		return d.failed(address, d.greetTrouble(err), err)
	}
	if d.sasl == nil {
		return nil
	}
	response, err := broker.RoundTrip(&saslhandshake.Request{Mechanism: d.sasl.Name()})
	if err != nil {
		return d.failed(address, d.greetTrouble(err), err)
	}
	if answer := response.(*saslhandshake.Response); answer.ErrorCode != 0 {
		err := kafka.Error(answer.ErrorCode)
		return d.failed(address, handshakeTrouble(err, d.sasl.Name(), answer.Mechanisms), err)
	}
	host, port, _ := net.SplitHostPort(address)
	number, _ := strconv.Atoi(port)
	return d.authenticate(sasl.WithMetadata(ctx, &sasl.Metadata{Host: host, Port: number}), broker, address)
}

// authenticate exchanges what the mechanism wants until it is content. A broker
// says no with a code, or by closing the connection.
func (d *door) authenticate(ctx context.Context, broker *protocol.Conn, address string) error {
	exchange, state, err := d.sasl.Start(ctx)
	for done := false; err == nil && !done; {
		var response protocol.Message
		if response, err = broker.RoundTrip(&saslauthenticate.Request{AuthBytes: state}); err != nil {
			break
		}
		answer := response.(*saslauthenticate.Response)
		if answer.ErrorCode != 0 {
			// The broker's own words are left out: it has the password of PLAIN.
			err = kafka.Error(answer.ErrorCode)
			break
		}
		done, state, err = exchange.Next(ctx, answer.AuthBytes)
	}
	switch {
	case err == nil:
		return nil
	case timedOut(err):
		return d.failed(address, silent, err)
	default:
		return d.failed(address, refusedText, errors.Join(ErrRefused, err))
	}
}

func hostOf(address string) string {
	host, _, err := net.SplitHostPort(address)
	if err != nil {
		return address
	}
	return host
}
