"""The explorer's style sheet; colours are JupyterLab's own variables, so it follows the light and the dark theme."""

STYLE = """
<style>
.qx-explorer { width: 100%; }
.qx-columns { display: flex; flex-flow: row wrap; gap: 16px; width: 100%; align-items: flex-start; }
.qx-controls { flex: 1 1 250px; min-width: 250px; max-width: 300px; overflow: visible; }
.qx-controls select, .qx-controls input { min-width: 0; }
.qx-controls .widget-inline-hbox { width: auto; margin-right: 0; }
.qx-controls .widget-label { width: 128px; min-width: 128px; text-align: left; }
.qx-controls .qx-rule .widget-label { width: auto; flex: 1 1 auto; min-width: 0; }
.qx-controls .qx-rule .jupyter-button { width: 76px; flex: 0 0 auto; }
.qx-note { font-size: 11px; color: var(--jp-ui-font-color2); line-height: 1.3; margin-top: -4px; }
.qx-note .widget-html-content { line-height: 1.3; }
.qx-results { flex: 6 1 410px; min-width: 0; overflow: hidden; }
.qx-results .widget-html { width: 100%; margin: 0; }
.qx-results .widget-html-content { min-width: 0; }
.qx-cards { display: flex; flex-flow: row wrap; gap: 8px; line-height: 1.35; }
.qx-card { flex: 1 1 128px; border: 1px solid var(--jp-border-color2); border-radius: 4px; padding: 6px 10px; }
.qx-card-title, .qx-card-note { font-size: 11px; color: var(--jp-ui-font-color2); }
.qx-card-figure { font-size: 14px; font-weight: 600; color: var(--jp-ui-font-color1); }
.qx-error { border-left: 4px solid var(--jp-error-color1); background: var(--jp-layout-color2); padding: 6px 10px; }
.qx-error pre { overflow: auto; max-height: 240px; font-size: 11px; }
.qx-error .widget-html-content { line-height: 1.4; white-space: normal; }
.qx-predicted { font-size: 12px; line-height: 1.5; color: var(--jp-ui-font-color1); }
.qx-scroll { overflow-x: auto; max-width: 100%; }
.qx-table { border-collapse: collapse; font-size: 12px; line-height: 1.4; color: var(--jp-ui-font-color1); }
.qx-table th, .qx-table td { text-align: left !important; padding: 2px 8px; white-space: nowrap; }
.qx-table th { border-bottom: 1px solid var(--jp-border-color1); }
.qx-table tr:nth-child(even) { background: var(--jp-layout-color2); }
.qx-runs td:nth-child(2) { white-space: normal; min-width: 180px; }
.qx-shown { flex: 1 1 300px; }
.qx-tabs > .lm-TabBar > .lm-TabBar-content { flex-wrap: wrap; }
.qx-tabs > .lm-TabBar .lm-TabBar-tab {
  flex: 0 0 auto !important; min-width: 0 !important; max-width: none !important; padding: 0 6px; font-size: 12px;
}
.qx-tabs > .widget-tab-contents { display: none; }
.qx-panel { border: 1px solid var(--jp-border-color1); border-top: none; padding: 8px; overflow: hidden; }
.qx-explorer .progress-bar { transition: none; }
.qx-status .widget-html-content { font-size: 12px; color: var(--jp-ui-font-color2); }
.qx-playground .qx-controls { max-width: 300px; }
.qx-playground .qx-controls .widget-label { width: 84px; min-width: 84px; }
.qx-playground .qx-controls select, .qx-playground .qx-controls input { min-width: 0; }
.qx-playground .qx-note { margin-top: 0; }
.qx-playground .qx-results { flex-basis: 400px; }
.qx-playground .qx-clip .jupyter-widgets { width: auto; min-width: 0; flex: 1 1 auto; }
.qx-playground .qx-clip .widget-text { flex: 0 0 88px; }
.qx-playground .qx-clip .widget-text .widget-label { position: absolute; clip-path: inset(50%); }
.qx-sources .qx-finding { border-left: 3px solid var(--jp-border-color2); padding-left: 8px; margin-bottom: 6px; }
.qx-sources .jupyter-button { white-space: normal; height: auto; line-height: 1.4; padding: 3px 10px; }
.qx-results .qx-fix .widget-html { width: auto; }
.qx-sources .qx-note { margin: 0 0 0 6px; }
.qx-facts { display: grid; grid-template-columns: repeat(3, 1fr); }
.qx-facts .qx-card-note { min-height: 2.7em; }
.qx-playground .qx-controls pre.qx-worked {
  margin: 0; font-size: 11px; line-height: 1.45; color: var(--jp-ui-font-color1); white-space: pre-wrap;
}
.qx-glossary td, .qx-words td { white-space: normal; vertical-align: top; }
.qx-glossary td:first-child { white-space: nowrap; font-weight: 600; }
.qx-help summary { cursor: pointer; font-weight: 600; }
.qx-question { border-left: 4px solid var(--jp-brand-color1); padding: 4px 12px; }
.qx-question .widget-html, .qx-question .widget-html-content {
  width: 100%; max-width: 820px; line-height: 1.5; white-space: normal;
}
.qx-question .widget-radio { width: auto; max-width: 100%; }
.qx-question .widget-radio-box { width: auto; max-width: none; }
.qx-question .widget-radio-box label { height: auto; line-height: 1.5; white-space: normal; width: auto; }
.qx-texts td {
  vertical-align: top; white-space: pre-wrap; width: 50%; overflow-wrap: anywhere;
  font-family: var(--jp-code-font-family);
}
.qx-verdict { font-size: 13px; color: var(--jp-ui-font-color1); }
</style>
"""
