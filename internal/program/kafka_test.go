package program

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"io"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"github.com/twmb/franz-go/pkg/kfake"

	"github.com/ecreds/issuer/internal/stream"
)

// files are a certificate that vouches for itself, its key, and what is neither.
type files struct {
	cert, key, otherKey, nonsense, password, none string
}

func writeFiles(t *testing.T) files {
	t.Helper()
	folder := t.TempDir()
	write := func(name string, content []byte) string {
		path := filepath.Join(folder, name)
		require.NoError(t, os.WriteFile(path, content, 0o600))
		return path
	}
	key, keyPEM := newKey(t)
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1), IsCA: true, BasicConstraintsValid: true, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	require.NoError(t, err)
	_, otherPEM := newKey(t)
	return files{
		cert: write("tls.crt", pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})),
		key:  write("tls.key", keyPEM), otherKey: write("other.key", otherPEM),
		nonsense: write("nonsense", []byte("s3cret, but no certificate")), password: write("password", []byte("s3cret-in-a-file\n")),
		none: filepath.Join(folder, "none"),
	}
}

func newKey(t *testing.T) (*ecdsa.PrivateKey, []byte) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	require.NoError(t, err)
	der, err := x509.MarshalPKCS8PrivateKey(key)
	require.NoError(t, err)
	return key, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: der})
}

func TestKafkaSecurityWithoutSenseIsRefusedByName(t *testing.T) {
	f := writeFiles(t)
	mechanism, user, password := "--kafka-sasl-mechanism=SCRAM-SHA-512", "--kafka-username=u", "--kafka-password=s3cret"
	for name, c := range map[string]struct {
		args []string
		says string
	}{
		"authority without TLS":     {[]string{"--kafka-ca-file=" + f.cert}, "KAFKA_CA_FILE (--kafka-ca-file): it is of no use without KAFKA_TLS=true"},
		"certificate without TLS":   {[]string{"--kafka-cert-file=" + f.cert}, "KAFKA_CERT_FILE"},
		"key without TLS":           {[]string{"--kafka-key-file=" + f.key}, "KAFKA_KEY_FILE"},
		"certificate without key":   {[]string{"--kafka-tls", "--kafka-cert-file=" + f.cert}, "KAFKA_KEY_FILE (--kafka-key-file): it must be set when KAFKA_CERT_FILE is"},
		"key without certificate":   {[]string{"--kafka-tls", "--kafka-key-file=" + f.key}, "KAFKA_CERT_FILE (--kafka-cert-file): it must be set when KAFKA_KEY_FILE is"},
		"no authority file":         {[]string{"--kafka-tls", "--kafka-ca-file=" + f.none}, "KAFKA_CA_FILE"},
		"no authority in the file":  {[]string{"--kafka-tls", "--kafka-ca-file=" + f.nonsense}, "KAFKA_CA_FILE (--kafka-ca-file): " + f.nonsense + " holds no certificate in PEM form"},
		"no certificate file":       {[]string{"--kafka-tls", "--kafka-cert-file=" + f.none, "--kafka-key-file=" + f.key}, "KAFKA_CERT_FILE"},
		"no certificate in file":    {[]string{"--kafka-tls", "--kafka-cert-file=" + f.nonsense, "--kafka-key-file=" + f.key}, "KAFKA_CERT_FILE"},
		"no key file":               {[]string{"--kafka-tls", "--kafka-cert-file=" + f.cert, "--kafka-key-file=" + f.none}, "KAFKA_KEY_FILE"},
		"no key in the file":        {[]string{"--kafka-tls", "--kafka-cert-file=" + f.cert, "--kafka-key-file=" + f.nonsense}, "KAFKA_KEY_FILE"},
		"another key":               {[]string{"--kafka-tls", "--kafka-cert-file=" + f.cert, "--kafka-key-file=" + f.otherKey}, "KAFKA_KEY_FILE"},
		"mechanism":                 {[]string{"--kafka-tls", "--kafka-sasl-mechanism=GSSAPI", user, password}, "kafka-sasl-mechanism"},
		"user alone":                {[]string{"--kafka-tls", user}, "KAFKA_SASL_MECHANISM (--kafka-sasl-mechanism): it must be set when KAFKA_USERNAME is"},
		"password alone":            {[]string{"--kafka-tls", password}, "KAFKA_SASL_MECHANISM (--kafka-sasl-mechanism): it must be set when KAFKA_PASSWORD is"},
		"mechanism alone":           {[]string{"--kafka-tls", mechanism}, "KAFKA_USERNAME (--kafka-username): it must be set when KAFKA_SASL_MECHANISM is"},
		"no password":               {[]string{"--kafka-tls", mechanism, user}, "KAFKA_PASSWORD (--kafka-password): it must be set when KAFKA_USERNAME is"},
		"no user":                   {[]string{"--kafka-tls", mechanism, password}, "KAFKA_USERNAME"},
		"no mechanism":              {[]string{"--kafka-tls", user, password}, "KAFKA_SASL_MECHANISM"},
		"SCRAM without TLS":         {[]string{mechanism, user, password}, "KAFKA_SASL_MECHANISM (--kafka-sasl-mechanism): credentials without KAFKA_TLS=true"},
		"PLAIN without TLS":         {[]string{"--kafka-sasl-mechanism=PLAIN", user, password}, "KAFKA_SASL_WITHOUT_TLS"},
		"password with a forbidden": {[]string{"--kafka-tls", mechanism, user, "--kafka-password=s3cret\a"}, "KAFKA_SASL_MECHANISM"},
	} {
		t.Run(name, func(t *testing.T) {
			err := Parse("test", "", new(settings), append(c.args, "--kafka-brokers=a:1"), io.Discard, io.Discard)
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "s3cret")
			require.NotContains(t, err.Error(), "\n", "one line")
		})
	}
}

func TestKafkaPasswordMayStandInAFile(t *testing.T) {
	f := writeFiles(t)
	t.Setenv("KAFKA_TLS", "true")
	t.Setenv("KAFKA_SASL_MECHANISM", "PLAIN")
	t.Setenv("KAFKA_USERNAME", "u")
	t.Setenv("KAFKA_PASSWORD_FILE", f.password)
	var s settings
	require.NoError(t, Parse("test", "", &s, []string{"--kafka-brokers=a:1"}, io.Discard, io.Discard))
	require.Equal(t, "s3cret-in-a-file", s.Password)

	t.Setenv("KAFKA_PASSWORD_FILE", f.none)
	require.ErrorContains(t, Parse("test", "", new(settings), []string{"--kafka-brokers=a:1"}, io.Discard, io.Discard),
		"KAFKA_PASSWORD_FILE")
}

func TestHelpShowsNoSecret(t *testing.T) {
	f := writeFiles(t)
	t.Setenv("KAFKA_PASSWORD", "s3cret")
	t.Setenv("KAFKA_PASSWORD_FILE", f.password)
	var out bytes.Buffer
	require.ErrorIs(t, Parse("test", "", new(settings), []string{"--help"}, &out, &out), ErrHelp)
	require.Contains(t, out.String(), "KAFKA_PASSWORD")
	require.NotContains(t, out.String(), "s3cret")
}

// TestConnectReachesASecuredBroker goes from settings to the broker, which asks
// for a certificate and for credentials.
func TestConnectReachesASecuredBroker(t *testing.T) {
	f := writeFiles(t)
	pair, err := tls.LoadX509KeyPair(f.cert, f.key)
	require.NoError(t, err)
	pool, _, err := certificates("KAFKA_CA_FILE", f.cert)
	require.NoError(t, err)
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("SCRAM-SHA-512", "u", "s3cret"),
		kfake.TLS(&tls.Config{Certificates: []tls.Certificate{pair}, ClientAuth: tls.RequireAndVerifyClientCert, ClientCAs: pool}))
	require.NoError(t, err)
	defer broker.Close()
	good := Kafka{
		Brokers: broker.ListenAddrs(), TLS: true, CAFile: f.cert, CertFile: f.cert, KeyFile: f.key,
		SASLMechanism: "SCRAM-SHA-512", Username: "u", Password: "s3cret",
	}
	for name, c := range map[string]struct {
		change func(*Kafka)
		says   string
	}{
		"as it should be":   {func(*Kafka) {}, ""},
		"another password":  {func(k *Kafka) { k.Password = "other s3cret" }, stream.ErrRefused.Error()},
		"no certificate":    {func(k *Kafka) { k.CertFile, k.KeyFile = "", "" }, "KAFKA_CERT_FILE"},
		"system's own list": {func(k *Kafka) { k.CAFile = "" }, "KAFKA_CA_FILE"},
	} {
		t.Run(name, func(t *testing.T) {
			k := good
			c.change(&k)
			conn, err := k.Connect("test")
			require.NoError(t, err)
			defer conn.Close()
			err = conn.Ping(t.Context())
			if c.says == "" {
				require.NoError(t, err)
				return
			}
			require.ErrorContains(t, err, c.says)
			require.NotContains(t, err.Error(), "s3cret")
		})
	}
	bad := good
	bad.TLS = false
	_, err = bad.Connect("test")
	require.ErrorContains(t, err, "KAFKA_CA_FILE", "settings that were not parsed are checked too")
}

func TestCredentialsWithoutTLSWhereThatIsWanted(t *testing.T) {
	broker, err := kfake.NewCluster(kfake.NumBrokers(1), kfake.EnableSASL(), kfake.Superuser("PLAIN", "u", "s3cret"))
	require.NoError(t, err)
	defer broker.Close()
	k := Kafka{Brokers: broker.ListenAddrs(), SASLMechanism: "PLAIN", Username: "u", Password: "s3cret", SASLWithoutTLS: true}
	conn, err := k.Connect("test")
	require.NoError(t, err)
	defer conn.Close()
	require.NoError(t, conn.Ping(t.Context()))
}
