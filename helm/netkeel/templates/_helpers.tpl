{{- define "netkeel.image" -}}
{{ .Values.image.repository }}:{{ .Values.image.tag | default .Chart.AppVersion }}
{{- end }}

{{- define "netkeel.labels" -}}
app.kubernetes.io/name: netkeel
app.kubernetes.io/version: {{ .Chart.AppVersion | quote }}
app.kubernetes.io/managed-by: {{ .Release.Service }}
helm.sh/chart: {{ .Chart.Name }}-{{ .Chart.Version }}
{{- end }}

{{- /* The API server's real addresses: Netkeel makes the service network, so it cannot need it. */ -}}
{{- define "netkeel.apiServers" -}}
{{- $found := .Values.apiServers }}
{{- if not $found }}
{{- $slice := lookup "discovery.k8s.io/v1" "EndpointSlice" "default" "kubernetes" }}
{{- range $endpoint := ($slice).endpoints }}
{{- range $address := $endpoint.addresses }}
{{- range $port := $slice.ports }}
{{- if contains ":" $address }}
{{- $found = append $found (printf "[%s]:%d" $address (int $port.port)) }}
{{- else }}
{{- $found = append $found (printf "%s:%d" $address (int $port.port)) }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- end }}
{{- if not $found }}
{{- fail "the API server's addresses are not known: no EndpointSlice default/kubernetes was found (helm template sees no cluster); set apiServers, for example --set apiServers[0]=192.0.2.10:6443" }}
{{- end }}
{{- join "," $found }}
{{- end }}

{{- /* What every pod of the operator's image has in common. */ -}}
{{- define "netkeel.pod" -}}
serviceAccountName: netkeel-operator
hostNetwork: true
dnsPolicy: Default
priorityClassName: system-cluster-critical
# It has to run before there is a network, wherever that is; it leaves a node that is gone, and is never put on one,
# so no toleration may cover NoSchedule of node.kubernetes.io/unreachable.
tolerations:
- {key: CriticalAddonsOnly, operator: Exists}
- {key: node-role.kubernetes.io/control-plane, operator: Exists}
- {key: node.cloudprovider.kubernetes.io/uninitialized, operator: Exists}
- {key: node.kubernetes.io/network-unavailable, operator: Exists}
- {key: node.kubernetes.io/not-ready, operator: Exists}
- {key: node.kubernetes.io/unreachable, operator: Exists, effect: NoExecute, tolerationSeconds: 30}
{{- with .Values.operator.tolerations }}
{{ toYaml . }}
{{- end }}
securityContext:
  runAsNonRoot: true
  runAsUser: 65532
  runAsGroup: 65532
  seccompProfile: {type: RuntimeDefault}
{{- end }}

{{- define "netkeel.container" -}}
image: {{ include "netkeel.image" . }}
imagePullPolicy: {{ .Values.image.pullPolicy }}
securityContext:
  allowPrivilegeEscalation: false
  readOnlyRootFilesystem: true
  capabilities: {drop: [ALL]}
env:
- {name: NETKEEL_API_SERVERS, value: {{ include "netkeel.apiServers" . | quote }}}
- {name: NETKEEL_IMAGE, value: {{ include "netkeel.image" . | quote }}}
- {name: NETKEEL_IMAGE_PULL_POLICY, value: {{ .Values.image.pullPolicy }}}
- {name: RUST_LOG, value: {{ .Values.operator.log | quote }}}
- {name: POD_NAME, valueFrom: {fieldRef: {fieldPath: metadata.name}}}
- {name: POD_NAMESPACE, valueFrom: {fieldRef: {fieldPath: metadata.namespace}}}
{{- end }}
