//go:build tools

// Names the packages that are built from this module's pinned versions.
package main

import (
	_ "github.com/jaegertracing/jaeger/cmd/jaeger"
)
