//go:build tools

// Names the package that is built from this module's pinned version.
package main

import (
	_ "github.com/coredns/coredns"
)
