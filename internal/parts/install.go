package parts

import (
	"context"
	"crypto/sha256"
	_ "embed"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"time"

	"github.com/gofrs/flock"
)

//go:embed debian-packages
var debianPackages string

// errNotStopped is a mistake of the package whose test wants a shared part.
var errNotStopped = errors.New("nobody would stop the shared part: let TestMain run the tests with parts.StopAfter(m)")

// missing says what to do about a program that is not installed.
func missing(program string) error {
	return fmt.Errorf("%s is not installed; as root on Debian or Ubuntu run: apt-get install -y --no-install-recommends %s",
		program, strings.TrimSpace(debianPackages))
}

func find(program string) (string, error) {
	path, err := exec.LookPath(program)
	if err != nil {
		return "", missing(program)
	}
	return path, nil
}

const (
	// installPatience is for another test binary that fetches the same jars.
	installPatience = 5 * time.Minute
	mavenTries      = 2
	// The plugin's version is pinned like everything else.
	mavenGoal = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"
)

// jars returns the folder with the jars of a pom, and fetches them when it is
// not there. Several test binaries may ask at once: one fetches, and the others
// see the folder when it is complete.
func jars(ctx context.Context, name string, pom []byte) (string, error) {
	cache, err := cacheFolder()
	if err != nil {
		return "", err
	}
	folder := filepath.Join(cache, fmt.Sprintf("%s-%x", name, sha256.Sum256(pom))[:len(name)+13])
	if isFolder(folder) {
		return folder, nil
	}
	ctx, cancel := context.WithTimeout(ctx, installPatience)
	defer cancel()
	lock := flock.New(folder + ".lock")
	if _, err := lock.TryLockContext(ctx, glimpse); err != nil {
		return "", fmt.Errorf("wait for the lock %s: %w", lock.Path(), err)
	}
	defer func() { _ = lock.Unlock() }() // ends with the process at the latest
	if isFolder(folder) {
		return folder, nil
	}
	return folder, fetch(ctx, folder, pom)
}

func cacheFolder() (string, error) {
	cache := os.Getenv("PARTS_CACHE")
	if cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return "", fmt.Errorf("find a cache folder for jars (set PARTS_CACHE to one): %w", err)
		}
		cache = filepath.Join(user, "ecreds-issuer", "parts")
	}
	if err := os.MkdirAll(cache, 0o750); err != nil {
		return "", fmt.Errorf("make the cache folder for jars (set PARTS_CACHE to another): %w", err)
	}
	return cache, nil
}

func isFolder(path string) bool {
	info, err := os.Stat(path)
	return err == nil && info.IsDir()
}

// fetch downloads beside the folder and renames, so that what stands in the
// folder is complete.
func fetch(ctx context.Context, folder string, pom []byte) error {
	maven, err := find("mvn")
	if err != nil {
		return err
	}
	temporary, err := os.MkdirTemp(filepath.Dir(folder), ".fetching-")
	if err != nil {
		return fmt.Errorf("fetch jars: %w", err)
	}
	defer func() { _ = os.RemoveAll(temporary) }() // in a cache
	pomFile, libs := filepath.Join(temporary, "pom.xml"), filepath.Join(temporary, "libs")
	if err := os.WriteFile(pomFile, pom, 0o600); err != nil {
		return fmt.Errorf("fetch jars: %w", err)
	}
	args := []string{maven, "-q", "-B", "-f", pomFile, mavenGoal, "-DincludeScope=runtime", "-DoutputDirectory=" + libs}
	for range mavenTries {
		if _, err = execute(ctx, nil, args...); err == nil {
			return os.Rename(libs, folder)
		}
	}
	return fmt.Errorf("fetch jars: %w", err)
}
