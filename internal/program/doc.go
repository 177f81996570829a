// Package program is what both programs share when they start: the settings
// they have in common, how settings are read and refused, logger, registry, and
// serving HTTP until told to stop. It holds no logic of certificates.
package program
