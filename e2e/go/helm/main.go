//go:build tools

// Names the packages that are built from this module's pinned versions.
package main

import (
	_ "helm.sh/helm/v4/cmd/helm"
)
