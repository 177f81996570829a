package parts

import (
	"context"
	"path/filepath"
)

// java gives the command line of a Java program out of the jars of a pom, which
// are fetched if need be. Parts live for seconds and share a small machine: the
// compiler that would make them fast in a minute costs more than it gives.
func java(ctx context.Context, name string, pom []byte, args ...string) ([]string, error) {
	program, err := find("java")
	if err != nil {
		return nil, err
	}
	libs, err := jars(ctx, name, pom)
	if err != nil {
		return nil, err
	}
	return append([]string{
		program, "-Xmx512m", "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-cp", filepath.Join(libs, "*"),
	}, args...), nil
}
