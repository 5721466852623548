module netkeel.io/e2e/cilium

go 1.26.0

require github.com/cilium/cilium v1.15.19
