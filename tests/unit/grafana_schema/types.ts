// The types of a dashboard's JSON, by @grafana/schema: where it has an enumeration of texts, JSON holds the text.
import type { AnnotationQuery, Dashboard as Published, DataQuery, Panel as AnyPanel, RowPanel } from '@grafana/schema';
import type { Options as HeatmapOptions } from '@grafana/schema/dist/esm/raw/composable/heatmap/panelcfg/x/HeatmapPanelCfg_types.gen';
import type { Options as LogsOptions } from '@grafana/schema/dist/esm/raw/composable/logs/panelcfg/x/LogsPanelCfg_types.gen';
import type { Options as StatOptions } from '@grafana/schema/dist/esm/raw/composable/stat/panelcfg/x/StatPanelCfg_types.gen';
import type {
  FieldConfig as StateTimelineField,
  Options as StateTimelineOptions,
} from '@grafana/schema/dist/esm/raw/composable/statetimeline/panelcfg/x/StateTimelinePanelCfg_types.gen';
import type {
  FieldConfig as TableField,
  Options as TableOptions,
} from '@grafana/schema/dist/esm/raw/composable/table/panelcfg/x/TablePanelCfg_types.gen';
import type {
  FieldConfig as TimeSeriesField,
  Options as TimeSeriesOptions,
} from '@grafana/schema/dist/esm/raw/composable/timeseries/panelcfg/x/TimeSeriesPanelCfg_types.gen';

type Json<T> = T extends string
  ? `${T}`
  : T extends number | boolean | null | undefined
    ? T
    : T extends Array<infer Item>
      ? Array<Json<Item>>
      : T extends object
        ? { [Key in keyof T]: Json<T[Key]> }
        : T;

type Of<Type extends string, Options, Custom> = Json<Omit<AnyPanel, 'type' | 'options' | 'fieldConfig'>> & {
  type: Type;
  options: Json<Partial<Options>>;
  fieldConfig: Omit<Json<NonNullable<AnyPanel['fieldConfig']>>, 'defaults'> & {
    defaults: Omit<Json<NonNullable<AnyPanel['fieldConfig']>['defaults']>, 'custom'> & {
      custom?: Json<Partial<Custom>>;
    };
  };
};

type Nothing = Record<string, never>;

export type Panel =
  | Of<'heatmap', HeatmapOptions, Nothing>
  | Of<'logs', LogsOptions, Nothing>
  | Of<'stat', StatOptions, Nothing>
  | Of<'state-timeline', StateTimelineOptions, StateTimelineField>
  | Of<'table', TableOptions, TableField>
  | Of<'timeseries', TimeSeriesOptions, TimeSeriesField>;

// What Grafana's Prometheus datasource adds to both; its own types are published with the plugin's code only.
type PrometheusQuery = Json<DataQuery> & {
  expr: string;
  format?: 'time_series' | 'table' | 'heatmap';
  instant?: boolean;
  range?: boolean;
};
type Annotation = Omit<Json<AnnotationQuery>, 'target'> & {
  target: PrometheusQuery;
  titleFormat?: string;
  textFormat?: string;
  step?: string;
};

export type Dashboard = Omit<Json<Published>, 'panels' | 'annotations'> & {
  panels: Array<Panel | (Json<Omit<RowPanel, 'type'>> & { type: 'row' })>;
  annotations: { list: Annotation[] };
};
