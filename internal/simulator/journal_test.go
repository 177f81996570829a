package simulator

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestRestartBringsEverythingBack(t *testing.T) {
	t.Parallel()
	cfg := Config{Era: Era390, DataDir: t.TempDir()}
	p, err := Start(cfg)
	require.NoError(t, err)
	require.NoError(t, p.Load(learnerData))
	require.NoError(t, p.Load(smallBatch))
	c := generateOne(t, p, map[string]any{"keys": map[string]string{"id": "2"}})
	addCertificate(t, p, c.ID, "")
	call(t, "POST", p.URLs().LearnerService+"/v1/notification/email", `{"request":{"subject":"s","body":"b","recipientUserIds":["u1"]}}`)
	call(t, "POST", p.URLs().Elasticsearch+"/user-courses/_update/0127_u1", `{"doc":{"certificates":[{"name":"A"}]}}`)
	require.NoError(t, p.Close())

	path := filepath.Join(cfg.DataDir, journalName)
	whole, err := os.ReadFile(path)
	require.NoError(t, err)
	require.NoError(t, os.WriteFile(path, append(whole, `{"certificate":{"id":"half`...), 0o600))
	for range 2 { // the second time from a file that was cut and written on
		p, err = Start(cfg)
		require.NoError(t, err)
		require.NoError(t, p.Load(smallBatch))
		require.Len(t, p.Registered(), 1)
		require.Len(t, p.Outbox(), 1)
		_, body := call(t, "POST", p.URLs().CertService+"/v1/certs/verify", map[string]any{"request": map[string]any{"certificate": map[string]any{"data": c.JSONData}}})
		require.Contains(t, string(body), `"valid":true`, "the key is the same")
		status, assertion := call(t, "GET", p.URLs().Files+"/certs/0123_0127/"+c.ID+".json", nil)
		require.Equal(t, 200, status)
		require.JSONEq(t, string(c.JSONData), string(assertion))
		_, answer := es(t, p, "/user-courses/_count", `{"query":{"nested":{"path":"certificates","query":{"exists":{"field":"certificates.name"}}}}}`)
		require.Equal(t, 2, answer.Count)
		generateOne(t, p, nil)
		require.NoError(t, p.Close())
	}
}

func TestDamagedJournalIsRefused(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, journalName), []byte("not json\n{}\n"), 0o600))
	_, err := Start(Config{DataDir: dir})
	require.ErrorContains(t, err, "line 1")
}
