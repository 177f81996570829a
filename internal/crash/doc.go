// Package crash lets a program die, as by kill -9, exactly before or after one
// of its outward calls or writes, for tests of what that leaves.
//
// It stands around the core's ports, in programs built with the tag crash alone:
// without it, only the names of the points are here, for the tests. Nothing in
// an ordinary program imports it. It promises that a port which gains a method
// no longer builds with the tag until somebody has decided whether the method
// is a point, and that a point without a name in the lists ends the program.
package crash
