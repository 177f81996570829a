package program

import (
	"crypto/tls"
	"crypto/x509"
	"os"

	"github.com/ecreds/issuer/internal/stream"
)

// Connect prepares the connection to Kafka that the settings describe. Nothing
// is dialled yet.
func (k Kafka) Connect(clientID string) (*stream.Connection, error) {
	config, err := k.connection(clientID)
	if err != nil {
		return nil, err
	}
	return stream.NewConnection(config)
}

func (k Kafka) connection(clientID string) (stream.ConnectionConfig, error) {
	config := stream.ConnectionConfig{Brokers: k.Brokers, ClientID: clientID}
	err := k.addTLS(&config)
	if err == nil {
		err = k.addCredentials(&config)
	}
	return config, err
}

func (k Kafka) addTLS(config *stream.ConnectionConfig) error {
	if !k.TLS {
		for _, file := range []struct{ name, path string }{
			{"KAFKA_CA_FILE", k.CAFile}, {"KAFKA_CERT_FILE", k.CertFile}, {"KAFKA_KEY_FILE", k.KeyFile},
		} {
			if file.path != "" {
				return Refuse(file.name, "it is of no use without KAFKA_TLS=true")
			}
		}
		return nil
	}
	config.TLS = &tls.Config{MinVersion: tls.VersionTLS12}
	if k.CAFile != "" {
		pool, _, err := certificates("KAFKA_CA_FILE", k.CAFile)
		if err != nil {
			return err
		}
		config.TLS.RootCAs = pool
	}
	return k.addCertificate(config.TLS)
}

// addCertificate gives us a certificate of our own.
func (k Kafka) addCertificate(config *tls.Config) error {
	switch {
	case k.CertFile == "" && k.KeyFile == "":
		return nil
	case k.KeyFile == "":
		return Refuse("KAFKA_KEY_FILE", "it must be set when KAFKA_CERT_FILE is")
	case k.CertFile == "":
		return Refuse("KAFKA_CERT_FILE", "it must be set when KAFKA_KEY_FILE is")
	}
	_, certificate, err := certificates("KAFKA_CERT_FILE", k.CertFile)
	if err != nil {
		return err
	}
	key, err := os.ReadFile(k.KeyFile)
	if err != nil {
		return Refuse("KAFKA_KEY_FILE", "%v", err)
	}
	pair, err := tls.X509KeyPair(certificate, key)
	if err != nil {
		return Refuse("KAFKA_KEY_FILE", "%s is not the key of %s: %v", k.KeyFile, k.CertFile, err)
	}
	config.Certificates = []tls.Certificate{pair}
	return nil
}

// certificates reads a file that must hold some.
func certificates(name, path string) (*x509.CertPool, []byte, error) {
	content, err := os.ReadFile(path)
	if err != nil {
		return nil, nil, Refuse(name, "%v", err)
	}
	pool := x509.NewCertPool()
	if !pool.AppendCertsFromPEM(content) {
		return nil, nil, Refuse(name, "%s holds no certificate in PEM form", path)
	}
	return pool, content, nil
}

// addCredentials refuses half of them, and to show them to others.
func (k Kafka) addCredentials(config *stream.ConnectionConfig) error {
	settings := []struct{ name, value string }{
		{"KAFKA_SASL_MECHANISM", k.SASLMechanism}, {"KAFKA_USERNAME", k.Username}, {"KAFKA_PASSWORD", k.Password},
	}
	given, missing := "", ""
	for _, s := range settings {
		if s.value != "" {
			given = s.name
		} else if missing == "" {
			missing = s.name
		}
	}
	switch {
	case given == "":
		return nil
	case missing != "":
		return Refuse(missing, "it must be set when %s is", given)
	case !k.TLS && !k.SASLWithoutTLS:
		return Refuse("KAFKA_SASL_MECHANISM", "credentials without KAFKA_TLS=true can be read or guessed by others on "+
			"the network; set it, or KAFKA_SASL_WITHOUT_TLS=true where nobody else is")
	}
	var err error
	if config.SASL, err = stream.SASL(k.SASLMechanism, k.Username, k.Password); err != nil {
		return Refuse("KAFKA_SASL_MECHANISM", "%v", err)
	}
	return nil
}
