package stream

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/pbkdf2"
	"crypto/rand"
	"crypto/sha512"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"math/big"
	"net"
	"strings"
	"testing"
	"time"

	"github.com/segmentio/kafka-go"
	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kerr"
	"github.com/twmb/franz-go/pkg/kfake"
	"github.com/twmb/franz-go/pkg/kmsg"
	"go.uber.org/zap/zapcore"
)

const (
	user     = "issuer"
	password = "s3cret-of-the-issuer"
	wrong    = "s3cret-that-was-yesterday"
	admin    = "admin"
)

// authority signs certificates for a test.
type authority struct {
	tb          testing.TB
	key         *ecdsa.PrivateKey
	certificate *x509.Certificate
	pool        *x509.CertPool
}

func newAuthority(tb testing.TB) *authority {
	tb.Helper()
	a := &authority{tb: tb, pool: x509.NewCertPool()}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "authority"}, IsCA: true, BasicConstraintsValid: true,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour), KeyUsage: x509.KeyUsageCertSign,
	}
	var err error
	a.key, err = ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(tb, err)
	der, err := x509.CreateCertificate(rand.Reader, template, template, a.key.Public(), a.key)
	require.NoError(tb, err)
	a.certificate, err = x509.ParseCertificate(der)
	require.NoError(tb, err)
	a.pool.AddCert(a.certificate)
	return a
}

// sign makes a certificate, for a broker at an address or for a client.
func (a *authority) sign(addresses ...net.IP) tls.Certificate {
	a.tb.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(a.tb, err)
	der, err := x509.CreateCertificate(rand.Reader, &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "somebody"}, IPAddresses: addresses,
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}, a.certificate, key.Public(), a.key)
	require.NoError(a.tb, err)
	return tls.Certificate{Certificate: [][]byte{der}, PrivateKey: key}
}

var loopback = net.IPv4(127, 0, 0, 1)

// serve is what a broker on loopback needs to speak TLS, trust what a client
// needs to believe it.
func (a *authority) serve() kfake.Opt {
	return kfake.TLS(&tls.Config{Certificates: []tls.Certificate{a.sign(loopback)}})
}

func (a *authority) trust() *tls.Config { return &tls.Config{RootCAs: a.pool} }

func mechanism(tb testing.TB, name, password string) Mechanism {
	tb.Helper()
	m, err := SASL(name, user, password)
	require.NoError(tb, err)
	return m
}

func connectAs(tb testing.TB, brokers []string, secure *tls.Config, mechanism Mechanism) *Connection {
	tb.Helper()
	conn, err := NewConnection(ConnectionConfig{Brokers: brokers, ClientID: "test", TLS: secure, SASL: mechanism})
	require.NoError(tb, err)
	tb.Cleanup(conn.Close)
	return conn
}

// requireUsable goes all ways to the brokers: administration, publishing,
// membership, fetching and committing.
func requireUsable(t *testing.T, conn *Connection) {
	t.Helper()
	require.NoError(t, conn.Ping(t.Context()))
	require.NoError(t, conn.EnsureTopics(t.Context(), []string{topic, "failed"}, 2, true))
	publisher := NewPublisher(conn, topic)
	t.Cleanup(func() { publisher.Close() })
	receipts := publisher.Publish(t.Context(), kafka.Message{Key: []byte("k"), Value: []byte("v")})
	require.NoError(t, receipts[0].Err)
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", atOnce)})
	j.requireRested(t, 1)
	requireCommitted(t, conn, receipts[0].Partition, 1)
	m.stop(t)
}

func TestT34EveryConnectionIsSecuredAlike(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, name := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newBroker(t, 2, ca.serve(), kfake.EnableSASL(), kfake.Superuser(name, user, password))
			requireUsable(t, connectAs(t, cluster.ListenAddrs(), ca.trust(), mechanism(t, name, password)))
		})
	}
	t.Run("TLS alone", func(t *testing.T) {
		t.Parallel()
		requireUsable(t, connectAs(t, newBroker(t, 2, ca.serve()).ListenAddrs(), ca.trust(), nil))
	})
	t.Run("SASL alone", func(t *testing.T) {
		t.Parallel()
		cluster := newBroker(t, 2, kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", user, password))
		requireUsable(t, connectAs(t, cluster.ListenAddrs(), nil, mechanism(t, "SCRAM-SHA-512", password)))
	})
}

func TestMutualTLS(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	cluster := newBroker(t, 2, kfake.TLS(&tls.Config{
		Certificates: []tls.Certificate{ca.sign(loopback)}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: ca.pool,
	}))
	for name, test := range map[string]struct {
		certificates []tls.Certificate
		says         string
	}{
		"ours":                 {certificates: []tls.Certificate{ca.sign()}},
		"none":                 {says: "check KAFKA_CERT_FILE and KAFKA_KEY_FILE"},
		"of another authority": {certificates: []tls.Certificate{other.sign()}, says: "check KAFKA_CERT_FILE and KAFKA_KEY_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			secure := ca.trust()
			// Whatever authorities the broker names: a client may be wrong about them.
			secure.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
				if len(test.certificates) == 0 {
					return new(tls.Certificate), nil
				}
				return &test.certificates[0], nil
			}
			conn := connectAs(t, cluster.ListenAddrs(), secure, nil)
			if test.says == "" {
				requireUsable(t, conn)
				return
			}
			requireLine(t, conn.Ping(t.Context()), cluster.ListenAddrs()[0], test.says)
		})
	}
}

// requireLine wants an error for a log: one line, the brokers, the trouble, and
// no secret.
func requireLine(tb testing.TB, err error, address string, says ...string) {
	tb.Helper()
	require.Error(tb, err)
	require.Equal(tb, 1, strings.Count(err.Error(), address), err.Error())
	require.True(tb, strings.HasPrefix(err.Error(), "kafka at "), err.Error())
	for _, words := range says {
		require.Contains(tb, err.Error(), words)
	}
	require.NotContains(tb, err.Error(), "\n")
	require.NotContains(tb, err.Error(), "s3cret")
}

func TestTroubleSaysWhatToCheck(t *testing.T) {
	t.Parallel()
	ca, other := newAuthority(t), newAuthority(t)
	plainBroker, tlsBroker := newBroker(t, 1), newBroker(t, 1, ca.serve())
	elsewhere := newBroker(t, 1, kfake.TLS(&tls.Config{Certificates: []tls.Certificate{ca.sign(net.IPv4(10, 0, 0, 1))}}))
	closed, closedTLS := newBroker(t, 1, kfake.EnableSASL()), newBroker(t, 1, ca.serve(), kfake.EnableSASL())
	choosy := newBroker(t, 1, kfake.EnableSASL())
	answerHandshake(choosy, kerr.UnsupportedSaslMechanism, "GSSAPI", "OAUTHBEARER")
	open := newBroker(t, 1)
	answerHandshake(open, kerr.IllegalSaslState)
	scram := mechanism(t, "SCRAM-SHA-512", password)
	for name, test := range map[string]struct {
		broker *kfake.Cluster
		secure *tls.Config
		sasl   Mechanism
		says   string
	}{
		"broker without TLS":          {plainBroker, ca.trust(), nil, "check KAFKA_TLS and the port in KAFKA_BROKERS"},
		"broker with TLS":             {tlsBroker, nil, nil, "asks for TLS (KAFKA_TLS)"},
		"broker with TLS, we SASL":    {tlsBroker, nil, scram, "check KAFKA_TLS"},
		"unknown authority":           {tlsBroker, other.trust(), nil, "the broker's certificate is from an unknown authority: check KAFKA_CA_FILE"},
		"another name":                {elsewhere, ca.trust(), nil, "the broker's certificate has another name"},
		"broker asks for credentials": {closed, nil, nil, "credentials (KAFKA_SASL_MECHANISM)"},
		"the same over TLS":           {closedTLS, ca.trust(), nil, "is stopping, or asks for credentials (KAFKA_SASL_MECHANISM)"},
		"mechanism not taken":         {choosy, nil, scram, "the broker does not take SCRAM-SHA-512, but GSSAPI, OAUTHBEARER: check KAFKA_SASL_MECHANISM"},
		"no credentials taken":        {open, nil, scram, "the broker takes no credentials on this port: check KAFKA_SASL_MECHANISM"},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			conn := connectAs(t, test.broker.ListenAddrs(), test.secure, test.sasl)
			err := conn.Ping(t.Context())
			requireLine(t, err, test.broker.ListenAddrs()[0], test.says)
			require.NotErrorIs(t, err, ErrRefused)
			requireLine(t, conn.EnsureTopics(t.Context(), []string{topic}, 1, false), test.broker.ListenAddrs()[0], test.says)
		})
	}
}

// TestABrokerWithoutTLS: Apache Kafka closes the connection, others wait for
// more or answer in their way.
func TestABrokerWithoutTLS(t *testing.T) {
	t.Parallel()
	for name, answer := range map[string]func(net.Conn){
		"closes":  func(conn net.Conn) { _, _ = conn.Read(make([]byte, 1)) },
		"answers": func(conn net.Conn) { _, _ = conn.Write([]byte("HTTP/1.1 400 Bad Request\r\n\r\n")) },
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			address := serveRaw(t, answer)
			requireLine(t, connectAs(t, []string{address}, &tls.Config{}, nil).Ping(t.Context()), address,
				"speak", "no TLS on this port: check KAFKA_TLS and the port in KAFKA_BROKERS")
		})
	}
}

// serveRaw answers each connection once and closes it.
func serveRaw(tb testing.TB, answer func(net.Conn)) string {
	tb.Helper()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(tb, err)
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			conn, err := listener.Accept()
			if err != nil {
				return
			}
			answer(conn)
			conn.Close()
		}
	}()
	tb.Cleanup(func() {
		listener.Close()
		<-done
	})
	return listener.Addr().String()
}

// answerHandshake has a broker refuse every mechanism.
func answerHandshake(cluster *kfake.Cluster, refusal *kerr.Error, offers ...string) {
	cluster.ControlKey(int16(kmsg.SASLHandshake), func(r kmsg.Request) (kmsg.Response, error, bool) {
		cluster.KeepControl()
		response := r.ResponseKind().(*kmsg.SASLHandshakeResponse)
		response.ErrorCode, response.SupportedMechanisms = refusal.Code, offers
		return response, nil, true
	})
}

func TestASilentBrokerIsGivenUp(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0") // accepts, and says nothing
	require.NoError(t, err)
	t.Cleanup(func() { listener.Close() })
	address := listener.Addr().String()
	for name, conn := range map[string]*Connection{
		"TLS":  connectAs(t, []string{address}, &tls.Config{}, nil),
		"SASL": connectAs(t, []string{address}, nil, mechanism(t, "PLAIN", password)),
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			requireLine(t, conn.Ping(t.Context()), address, "does not answer")
		})
	}
}

func TestTheBrokerInTroubleIsNamed(t *testing.T) {
	t.Parallel()
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	require.NoError(t, err)
	address := listener.Addr().String()
	require.NoError(t, listener.Close())
	conn := connectAs(t, []string{address, address}, nil, nil)
	require.EqualError(t, conn.Ping(t.Context()), fmt.Sprintf("kafka at %[1]s,%[1]s: broker %[1]s: "+
		"unreachable (connection refused): check KAFKA_BROKERS, and what the brokers advertise", address))
}

func TestWrongPassword(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	for _, name := range []string{"PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			cluster := newBroker(t, 1, ca.serve(), kfake.EnableSASL(), kfake.Superuser(name, user, password))
			requireRefused(t, cluster, connectAs(t, cluster.ListenAddrs(), ca.trust(), mechanism(t, name, wrong)))
		})
	}
	// What a broker says is not repeated: it may be anything.
	t.Run("told with a code", func(t *testing.T) {
		t.Parallel()
		cluster := newBroker(t, 1, kfake.EnableSASL())
		cluster.ControlKey(int16(kmsg.SASLAuthenticate), func(r kmsg.Request) (kmsg.Response, error, bool) {
			cluster.KeepControl()
			response := r.ResponseKind().(*kmsg.SASLAuthenticateResponse)
			response.ErrorCode = kerr.SaslAuthenticationFailed.Code
			response.ErrorMessage = kmsg.StringPtr("no such password: " + wrong)
			return response, nil, true
		})
		requireRefused(t, cluster, connectAs(t, cluster.ListenAddrs(), nil, mechanism(t, "PLAIN", wrong)))
	})
}

func requireRefused(t *testing.T, cluster *kfake.Cluster, conn *Connection) {
	t.Helper()
	line := fmt.Sprintf("kafka at %s: authentication refused: check KAFKA_USERNAME and KAFKA_PASSWORD", cluster.ListenAddrs()[0])
	require.EqualError(t, conn.Ping(t.Context()), line)
	require.ErrorIs(t, conn.Ping(t.Context()), ErrRefused)
	require.EqualError(t, conn.EnsureTopics(t.Context(), []string{topic}, 1, true), line)

	tries := cluster.Fault(kfake.Fault{Keys: []kmsg.Key{kmsg.Produce}, Observe: true, Count: -1})
	publisher := NewPublisher(conn, topic)
	t.Cleanup(func() { publisher.Close() })
	receipt := publisher.Publish(t.Context(), kafka.Message{Key: []byte("k")})[0]
	require.EqualError(t, receipt.Err, line)
	require.False(t, receipt.Unknown, "a record that never left is in no doubt")
	require.Zero(t, tries.Hits())

	m := join(t, conn, Config{Handle: atOnce})
	const message = "kafka refuses our credentials; trying again"
	require.Eventually(t, func() bool { return m.logs.FilterMessage(message).Len() > 0 }, patience, glimpse)
	entry := m.logs.FilterMessage(message).All()[0]
	require.Equal(t, zapcore.ErrorLevel, entry.Level)
	require.Equal(t, line, entry.ContextMap()["error"])
	m.stop(t)
	for _, entry := range m.logs.All() {
		require.NotContains(t, fmt.Sprint(entry.Message, entry.ContextMap()), "s3cret")
	}
}

// TestCredentialsPutRight: refused credentials are an outage, which ends when
// the brokers take them.
func TestCredentialsPutRight(t *testing.T) {
	t.Parallel()
	ca := newAuthority(t)
	cluster := newBroker(t, 1, ca.serve(), kfake.EnableSASL(),
		kfake.Superuser("PLAIN", admin, password), kfake.Superuser("SCRAM-SHA-512", user, "s3cret-unknown"))
	operator, err := SASL("PLAIN", admin, password)
	require.NoError(t, err)
	fill(t, connectAs(t, cluster.ListenAddrs(), ca.trust(), operator), 0, 3, ownKey)

	conn := connectAs(t, cluster.ListenAddrs(), ca.trust(), mechanism(t, "SCRAM-SHA-512", password))
	publisher := NewPublisher(conn, topic)
	t.Cleanup(func() { publisher.Close() })
	require.ErrorIs(t, publisher.Publish(t.Context(), kafka.Message{Key: []byte("k")})[0].Err, ErrRefused)
	j := newJournal()
	m := join(t, conn, Config{Handle: j.handler("m", atOnce)})
	require.Eventually(t, func() bool {
		return m.logs.FilterMessage("kafka refuses our credentials; trying again").Len() > 0
	}, patience, glimpse)
	require.Zero(t, j.begunEvents())

	setPassword(t, connectAs(t, cluster.ListenAddrs(), ca.trust(), operator), password)
	j.requireRested(t, 3)
	require.Eventually(t, func() bool { return conn.Ping(t.Context()) == nil }, patience, glimpse)
	require.NoError(t, publisher.Publish(t.Context(), kafka.Message{Key: []byte("k")})[0].Err)
	j.requireRested(t, 4)
}

// setPassword changes a user's password as an operator does.
func setPassword(tb testing.TB, operator *Connection, password string) {
	tb.Helper()
	const iterations = 4096
	salt := []byte("salt of a test")
	salted, err := pbkdf2.Key(sha512.New, password, salt, iterations, sha512.Size)
	require.NoError(tb, err)
	response, err := operator.client.AlterUserScramCredentials(tb.Context(), &kafka.AlterUserScramCredentialsRequest{
		Upsertions: []kafka.UserScramCredentialsUpsertion{{
			Name: user, Mechanism: kafka.ScramMechanismSha512, Iterations: iterations, Salt: salt, SaltedPassword: salted,
		}},
	})
	require.NoError(tb, err)
	for _, result := range response.Results {
		require.NoError(tb, result.Error)
	}
}

func TestSASLRefusesWithoutQuoting(t *testing.T) {
	t.Parallel()
	for name, test := range map[string]struct{ mechanism, password, says string }{
		"unknown":              {"GSSAPI", password, "it must be PLAIN, SCRAM-SHA-256 or SCRAM-SHA-512"},
		"PLAIN, zero byte":     {"PLAIN", "s3cret\x00", "user name or password has a character that PLAIN does not take"},
		"SCRAM, forbidden":     {"SCRAM-SHA-256", "s3cret\x07", "user name or password has a character that SCRAM-SHA-256 does not take"},
		"SCRAM-512, forbidden": {"SCRAM-SHA-512", "s3cret\x07", "user name or password has a character that SCRAM-SHA-512 does not take"},
	} {
		_, err := SASL(test.mechanism, user, test.password)
		require.EqualError(t, err, test.says, name)
	}
}
