package crash

import (
	"os/exec"
	"testing"

	"github.com/stretchr/testify/require"
)

// TestNothingOfItIsInAnOrdinaryProgram asks the build which packages it takes.
func TestNothingOfItIsInAnOrdinaryProgram(t *testing.T) {
	const own, programs = "github.com/ecreds/issuer/internal/crash", "github.com/ecreds/issuer/cmd/..."
	list := func(tags string) string {
		packages, err := exec.CommandContext(t.Context(), "go", "list", "-deps", "-tags="+tags, programs).CombinedOutput()
		require.NoError(t, err, "%s", packages)
		return string(packages)
	}
	require.NotContains(t, list(""), own)
	require.Contains(t, list("crash"), own, "otherwise the test looks for the wrong thing")
}
