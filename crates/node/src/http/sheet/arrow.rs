//! Points as a stream of record batches in Arrow's IPC format, which pandas, Polars, DuckDB and others read without a copy.
//!
//! ```text
//! metric      dictionary of texts
//! labels      dictionary of texts: a JSON object
//! timestamp   timestamp, ns, UTC
//! f64, i64, bool, text      the value stands in the column of its type, the others are null
//! ```
//! A row is a point. A batch has at most [`BATCH_ROWS_MAX`] rows and brings the dictionary of its own series, so memory does not grow with
//! the answer.

use std::io;
use std::sync::Arc;

use arrow_array::builder::{
    BooleanBuilder, Float64Builder, Int64Builder, StringBuilder, StringDictionaryBuilder,
    TimestampNanosecondBuilder,
};
use arrow_array::types::Int32Type;
use arrow_array::{ArrayRef, RecordBatch};
use arrow_ipc::writer::StreamWriter;
use arrow_schema::{ArrowError, DataType, Field, Schema, SchemaRef, TimeUnit};
use tidelog_record::{Series, Value};

use super::super::answer::labels_object;

/// Rows of one batch.
const BATCH_ROWS_MAX: usize = 8_192;

/// Bytes of texts after which a batch ends.
const BATCH_TEXT_BYTES_MAX: usize = 1024 * 1024;

const UTC: &str = "UTC";

fn unwritten(error: ArrowError) -> io::Error {
    io::Error::other(error.to_string())
}

fn schema() -> SchemaRef {
    let names = DataType::Dictionary(Box::new(DataType::Int32), Box::new(DataType::Utf8));
    let time = DataType::Timestamp(TimeUnit::Nanosecond, Some(UTC.into()));
    Arc::new(Schema::new(vec![
        Field::new("metric", names.clone(), false),
        Field::new("labels", names, false),
        Field::new("timestamp", time, false),
        Field::new("f64", DataType::Float64, true),
        Field::new("i64", DataType::Int64, true),
        Field::new("bool", DataType::Boolean, true),
        Field::new("text", DataType::Utf8, true),
    ]))
}

/// The columns of the batch that is being filled.
struct Columns {
    metric: StringDictionaryBuilder<Int32Type>,
    labels: StringDictionaryBuilder<Int32Type>,
    time: TimestampNanosecondBuilder,
    f64: Float64Builder,
    i64: Int64Builder,
    bool: BooleanBuilder,
    text: StringBuilder,
    rows: usize,
    text_bytes: usize,
}

impl Columns {
    fn new() -> Self {
        Self {
            metric: StringDictionaryBuilder::new(),
            labels: StringDictionaryBuilder::new(),
            time: TimestampNanosecondBuilder::new().with_timezone(UTC),
            f64: Float64Builder::new(),
            i64: Int64Builder::new(),
            bool: BooleanBuilder::new(),
            text: StringBuilder::new(),
            rows: 0,
            text_bytes: 0,
        }
    }

    fn add(&mut self, metric: &str, labels: &str, at: i64, value: &Value) -> io::Result<()> {
        self.metric.append(metric).map_err(unwritten)?;
        self.labels.append(labels).map_err(unwritten)?;
        self.time.append_value(at);
        let (mut f64, mut i64, mut bool, mut text) = (None, None, None, None);
        match value {
            Value::F64(value) => f64 = Some(*value),
            Value::I64(value) => i64 = Some(*value),
            Value::Bool(value) => bool = Some(*value),
            Value::Text(value) => text = Some(value.as_str()),
        }
        self.text_bytes += text.map_or(0, str::len);
        self.f64.append_option(f64);
        self.i64.append_option(i64);
        self.bool.append_option(bool);
        self.text.append_option(text);
        self.rows += 1;
        Ok(())
    }

    fn is_full(&self) -> bool {
        self.rows >= BATCH_ROWS_MAX || self.text_bytes >= BATCH_TEXT_BYTES_MAX
    }

    /// The batch; the columns are empty then.
    fn take(&mut self, schema: &SchemaRef) -> Result<RecordBatch, ArrowError> {
        let columns: Vec<ArrayRef> = vec![
            Arc::new(self.metric.finish()),
            Arc::new(self.labels.finish()),
            Arc::new(self.time.finish()),
            Arc::new(self.f64.finish()),
            Arc::new(self.i64.finish()),
            Arc::new(self.bool.finish()),
            Arc::new(self.text.finish()),
        ];
        (self.rows, self.text_bytes) = (0, 0);
        RecordBatch::try_new(Arc::clone(schema), columns)
    }
}

/// Batches being written.
pub(in crate::http) struct Batches {
    schema: SchemaRef,
    writer: StreamWriter<Vec<u8>>,
    columns: Columns,
    /// The series whose points come, and its labels as they are written.
    open: Option<(Series, String)>,
}

impl Batches {
    pub fn begin() -> io::Result<Self> {
        let schema = schema();
        let writer = StreamWriter::try_new(Vec::new(), &schema).map_err(unwritten)?;
        Ok(Self { schema, writer, columns: Columns::new(), open: None })
    }

    /// What comes next is of this series.
    pub fn open(&mut self, series: &Series) {
        if self.open.as_ref().is_none_or(|(open, _)| open != series) {
            let labels = labels_object(series.labels());
            self.open = Some((series.clone(), String::from_utf8_lossy(&labels).into_owned()));
        }
    }

    /// Adds a point; whether a batch became whole by it.
    pub fn add(&mut self, at: i64, value: &Value) -> io::Result<bool> {
        let Some((series, labels)) = &self.open else { return Ok(false) };
        self.columns.add(series.metric(), labels, at, value)?;
        if !self.columns.is_full() {
            return Ok(false);
        }
        self.close()?;
        Ok(true)
    }

    fn close(&mut self) -> io::Result<()> {
        let batch = self.columns.take(&self.schema).map_err(unwritten)?;
        self.writer.write(&batch).map_err(unwritten)
    }

    /// Batches that are whole.
    pub fn bytes(&mut self) -> &mut Vec<u8> {
        self.writer.get_mut()
    }

    /// What is left to send.
    pub fn end(mut self) -> io::Result<Vec<u8>> {
        if self.columns.rows > 0 {
            self.close()?;
        }
        self.writer.into_inner().map_err(unwritten)
    }
}

#[cfg(test)]
mod tests {
    use super::super::{Sheet, SheetForm};
    use super::*;
    use arrow_array::Array;
    use arrow_array::cast::AsArray;
    use arrow_array::types::{Float64Type, Int64Type, TimestampNanosecondType};
    use arrow_ipc::reader::StreamReader;
    use proptest::prelude::*;

    type Row = (String, String, i64, String);

    fn shown(value: &Value) -> String {
        match value {
            Value::F64(value) => format!("f64 {:x}", value.to_bits()),
            other => format!("{other:?}"),
        }
    }

    fn value_of(batch: &RecordBatch, row: usize) -> Value {
        let there: Vec<usize> = (3..7).filter(|column| batch.column(*column).is_valid(row)).collect();
        assert_eq!(there.len(), 1, "one value a row");
        match there[0] {
            3 => Value::F64(batch.column(3).as_primitive::<Float64Type>().value(row)),
            4 => Value::I64(batch.column(4).as_primitive::<Int64Type>().value(row)),
            5 => Value::Bool(batch.column(5).as_boolean().value(row)),
            _ => Value::Text(batch.column(6).as_string::<i32>().value(row).to_owned()),
        }
    }

    fn rows(bytes: &[u8]) -> Vec<Row> {
        let mut rows = Vec::new();
        for batch in StreamReader::try_new(bytes, None).unwrap() {
            let batch = batch.unwrap();
            assert!((1..=BATCH_ROWS_MAX).contains(&batch.num_rows()));
            let name = |column: usize, row: usize| {
                let dictionary = batch.column(column).as_dictionary::<Int32Type>();
                let key = usize::try_from(dictionary.keys().value(row)).unwrap();
                dictionary.values().as_string::<i32>().value(key).to_owned()
            };
            let times = batch.column(2).as_primitive::<TimestampNanosecondType>();
            for row in 0..batch.num_rows() {
                rows.push((name(0, row), name(1, row), times.value(row), shown(&value_of(&batch, row))));
            }
        }
        rows
    }

    fn any_value() -> impl Strategy<Value = Value> {
        prop_oneof![
            any::<f64>().prop_map(Value::F64),
            Just(Value::F64(f64::NAN)),
            any::<i64>().prop_map(Value::I64),
            any::<bool>().prop_map(Value::Bool),
            "\\PC{0,40}".prop_map(Value::Text),
        ]
    }

    proptest! {
        #[test]
        fn what_is_read_is_what_was_written_however_the_points_came(
            series in prop::collection::btree_map("[a-c]", prop::collection::vec((any::<i64>(), any_value()), 1..40), 0..4),
            parts in 1..9usize, bytes_max in 1..400usize,
        ) {
            let write = |parts: usize, bytes_max: usize| {
                let mut sheet = Sheet::begin(SheetForm::Arrow, &"s".parse().unwrap()).unwrap();
                let mut out = Vec::new();
                for (name, points) in &series {
                    let of = Series::new("m", [("name", name)]).unwrap();
                    for part in points.chunks(parts) {
                        let keep = |bytes: Vec<u8>| { out.extend(bytes); Ok(()) };
                        sheet.series(&of, part.iter().cloned(), bytes_max, keep).unwrap();
                    }
                }
                out.extend(sheet.end().unwrap());
                out
            };
            let bytes = write(parts, bytes_max);
            prop_assert_eq!(&bytes, &write(usize::MAX, usize::MAX), "how it came is not seen");
            let all = series.iter().flat_map(|(name, points)| {
                points.iter().map(move |(at, value)| ("m".to_owned(), format!("{{\"name\":\"{name}\"}}"), *at, shown(value)))
            });
            prop_assert_eq!(rows(&bytes), all.collect::<Vec<_>>());
        }
    }

    #[test]
    fn an_answer_of_many_batches_is_sent_piece_by_piece_and_each_brings_its_own_names() {
        let mut sheet = Sheet::begin(SheetForm::Arrow, &"s".parse().unwrap()).unwrap();
        let (mut out, mut pieces) = (Vec::new(), 0);
        let count = i64::try_from(BATCH_ROWS_MAX).unwrap();
        for name in 0..5 {
            let of = Series::new("m", [("name", format!("{name}"))]).unwrap();
            let points = (0..count).map(|at| (at, Value::I64(at * name)));
            let keep = |bytes: Vec<u8>| {
                pieces += 1;
                out.extend(bytes);
                Ok(())
            };
            sheet.series(&of, points, 1_024, keep).unwrap();
        }
        out.extend(sheet.end().unwrap());
        let rows = rows(&out);
        assert_eq!((pieces, rows.len()), (5, 5 * BATCH_ROWS_MAX));
        assert_eq!(rows.last().unwrap().1, "{\"name\":\"4\"}");
    }
}
