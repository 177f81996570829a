package content_test

import (
	"testing"

	"github.com/stretchr/testify/assert"
	"github.com/stretchr/testify/require"

	"github.com/ecreds/issuer/internal/issue"
	"github.com/ecreds/issuer/internal/simulator"
)

func TestCoursesAtThePlatform(t *testing.T) {
	t.Parallel()
	p, err := simulator.Start(simulator.Config{})
	require.NoError(t, err)
	t.Cleanup(func() { assert.NoError(t, p.Close()) })
	data := simulator.DemoDataset(p.URLs().Files)
	require.NoError(t, p.Load(simulator.Dataset{Courses: data.Courses}))
	client := newClient(t, p.URLs().ContentService)
	require.NotEmpty(t, data.Courses)
	for _, c := range data.Courses {
		got, err := client.Course(t.Context(), issue.CourseID(c.ID))
		require.NoError(t, err)
		assert.Equal(t, c.Name, got.Name)
		assert.NotEmpty(t, got.Templates)
		if c.RawCertTemplate != nil {
			continue // of another form: see TestFormsOfCertTemplate
		}
		assert.Len(t, got.Templates, len(c.Templates))
		for i, template := range got.Templates {
			assert.Equal(t, c.Templates[i].Name, template.Name)
			assert.Equal(t, c.Templates[i].KeyID, template.KeyID)
			assert.Equal(t, c.Templates[i].Issuer.PublicKey, template.Issuer.PublicKeys)
			assert.Len(t, template.Notify, len(c.Templates[i].Notify))
			assert.Len(t, template.Signatories, len(c.Templates[i].SignatoryList))
		}
	}
	_, err = client.Course(t.Context(), "do_nothing")
	assert.Equal(t, issue.ReasonUnknownCourse, issue.AsFailure(err).Reason)
}
