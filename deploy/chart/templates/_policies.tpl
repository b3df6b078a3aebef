{{- define "bastion.dnsRule" -}}
- ports:
    - {protocol: UDP, port: {{ int .Values.networkPolicy.dns.port }}}
    - {protocol: TCP, port: {{ int .Values.networkPolicy.dns.port }}}
  to:
    {{- toYaml .Values.networkPolicy.dns.to | nindent 4 }}
{{- end -}}

{{/* The API server is no pod, so it is named by its addresses: those behind the Service, where packets really go. */}}
{{- define "bastion.kubeApiRule" -}}
- ports:
    - {protocol: TCP, port: {{ int .Values.kubeApiPort }}}
  to:
    {{- range .Values.kubeApiAddresses }}
    - ipBlock: {cidr: {{ . | quote }}}
    {{- end }}
{{- end -}}

{{/* Notebook servers with SSH. Policies know no patterns of namespaces: with such, any namespace's will do. */}}
{{- define "bastion.notebookPeers" -}}
{{- if include "bastion.clusterWide" . }}
- namespaceSelector: {}
  podSelector:
    matchLabels:
      {{- toYaml .Values.notebooks.matchLabels | nindent 6 }}
{{- else }}
{{- range $namespace := (include "bastion.namespaces" . | fromJson).in }}
- namespaceSelector:
    matchLabels:
      kubernetes.io/metadata.name: {{ $namespace | quote }}
  podSelector:
    matchLabels:
      {{- toYaml $.Values.notebooks.matchLabels | nindent 6 }}
{{- end }}
{{- end }}
{{- end -}}

{{/* Where notebook servers are spoken to. */}}
{{- define "bastion.notebookPorts" -}}
{{- range prepend .Values.notebooks.moreSshPorts .Values.notebooks.sshPort | uniq }}
- {protocol: TCP, port: {{ int . }}}
{{- end }}
- {protocol: TCP, port: {{ int .Values.notebooks.keyPort }}}
{{- end -}}
