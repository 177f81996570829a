package parts

import (
	"context"
	"fmt"
	"os/exec"
	"strings"
	"syscall"
)

// execute runs a program to its end and returns what it said. An error holds
// the whole command, so that it can be repeated by hand, and what it said.
func execute(ctx context.Context, user *syscall.Credential, args ...string) (string, error) {
	cmd := exec.CommandContext(ctx, args[0], args[1:]...) //nolint:gosec // the programs of the parts, with arguments of ours
	cmd.Dir = "/"                                         // where every user may be
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: user}
	output, err := cmd.CombinedOutput()
	said := strings.TrimSpace(string(output))
	if err != nil {
		return said, fmt.Errorf("%s: %w:\n%s", strings.Join(args, " "), err, said)
	}
	return said, nil
}
