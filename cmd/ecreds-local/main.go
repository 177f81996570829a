// Command ecreds-local runs eCreds Issuer on one machine: an embedded Kafka
// broker, a simulated Sunbird platform, and both programs, wired by the same
// code that their own mains use. It issues one seeded batch and shows how.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"

	"github.com/ecreds/issuer/internal/program"
)

func main() { os.Exit(program.Main(context.Background(), "ecreds-local", run)) }

func run(ctx context.Context, args []string, stdout, stderr io.Writer) error {
	config, err := parseConfig(args, stdout, stderr)
	if err != nil {
		return err
	}
	l, err := start(ctx, config)
	if err != nil {
		return err
	}
	err = l.run(ctx, func(ctx context.Context) error {
		fmt.Fprint(stdout, "eCreds Issuer on this machine\n\n")
		l.addresses(stdout)
		return l.demonstrate(ctx, stdout)
	})
	return errors.Join(err, l.close())
}
